import assert from "node:assert/strict";
import { type Daemon, type Host, labTest } from "../lab/mod.ts";
import { delay } from "../../src/util/time.ts";
import { patient } from "../support/slowness.ts";
import { ALLOC_CONFIG, openAllocLab, startReady } from "./support.ts";

/** What a daemon may take to end, as its operators are promised. */
const STOP_MS = patient(2_000);

/** Sends a signal and checks that the daemon ends in order, in time, and tells of it. */
async function assertStops(daemon: Daemon, name: "SIGTERM" | "SIGINT"): Promise<void> {
  const { process } = daemon;
  const sentAt = performance.now();
  process.signal(name);
  const status = await process.status;
  const took = performance.now() - sentAt;
  assert.equal(status.code, 0, `${process.title}:\n${process.tail()}`);
  assert.equal(status.signal, null);
  assert.ok(took < STOP_MS, `${process.title} took ${Math.round(took)} ms:\n${process.tail()}`);
  assert.match(process.lines.at(-1)!, new RegExp(`${name} received: stopping`));
}

/** All that a daemon may have set on its host. */
async function dataPlane(host: Host, options: { signal: AbortSignal }): Promise<string> {
  const { namespace } = host;
  const parts = await Promise.all([
    namespace.run("ip", ["-details", "address", "show"], options),
    namespace.run("ip", ["-details", "route", "show", "table", "all"], options),
    namespace.run("ip", ["-details", "-6", "route", "show", "table", "all"], options),
    namespace.run("ip", ["rule", "show"], options),
    namespace.run("nft", ["--stateless", "list", "ruleset"], options),
    Deno.readTextFile(host.subnetFile).catch(() => "no subnet.env"),
  ]);
  return parts.join("\n");
}

labTest("a signal ends the daemon in order, whatever it is doing", async ({ signal }) => {
  const names = ["SIGTERM", "SIGINT"] as const;
  // Two hosts per phase, one for each signal.
  const phases: {
    title: string;
    flags?: string[];
    prepare?: (host: Host) => Promise<void>;
    waitsFor: RegExp | "ready";
    /** What happens once it waits for that. */
    then?: (host: Host) => Promise<void>;
  }[] = [
    {
      title: "etcd refuses connections",
      flags: ["--etcd-endpoints=http://127.0.0.1:2379"],
      waitsFor: /Cannot read the network config yet/,
    },
    {
      title: "etcd is silent",
      prepare: (host) => lab.router.isolate(host.identity.port, { signal }),
      waitsFor: /Cannot read the network config yet/,
      then: () => delay(1_000, { signal }), // amid the next try
    },
    {
      title: "there is no config",
      flags: ["--etcd-prefix=/none"],
      waitsFor: /waiting for it/,
    },
    {
      title: "there is no default route",
      prepare: (host) =>
        host.namespace.ip([
          "route replace 10.0.0.0/16 via " +
          `${host.identity.port.gateway} dev eth0`,
          "route del default",
        ], { signal }),
      waitsFor: /No external interface yet/,
    },
    {
      title: "there is no free subnet",
      flags: ["--etcd-prefix=/full"],
      waitsFor: /Cannot lease a subnet/,
    },
    { title: "all is well", flags: ["--ip-masq", "--ip-blackhole-route"], waitsFor: "ready" },
    {
      title: "etcd has fallen silent",
      waitsFor: "ready",
      then: (host) => lab.router.isolate(host.identity.port, { signal }),
    },
  ];
  await using lab = await openAllocLab({ signal, hosts: phases.length * names.length });
  await lab.etcd.put("/full/config", JSON.stringify({ ...ALLOC_CONFIG, Network: "10.24.0.0/28" }), {
    signal,
  });
  for (const subnet of ["10.24.0.4-30", "10.24.0.8-30", "10.24.0.12-30"]) {
    await lab.etcd.put(`/full/subnets/${subnet}`, '{"PublicIP":"10.0.9.9"}', { signal });
  }
  // First all of them: one that is busy loading its modules hears no signal.
  const running = await Promise.all(lab.hosts.map(async (host, index) => {
    const { title, flags = [], prepare, waitsFor, then } = phases[
      Math.floor(index / names.length)
    ]!;
    await prepare?.(host);
    const daemon = await host.startDaemon({ flags });
    if (waitsFor === "ready") await daemon.ready({ signal });
    else await daemon.process.waitForLine(waitsFor, { signal });
    assert.equal(daemon.isReady(), waitsFor === "ready", title);
    await then?.(host);
    return { title, host, daemon, before: await dataPlane(host, { signal }) };
  }));
  await Promise.all(running.map(async ({ title, host, daemon, before }, index) => {
    await assertStops(daemon, names[index % names.length]!);
    assert.equal(await dataPlane(host, { signal }), before, title);
  }));
  // The leases of those that were ready stay, too: their pods are still there.
  assert.equal((await lab.leases({ signal })).size, 4);
});

labTest("what hangs is left behind in time, and at once on a second signal", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 3 });
  await Promise.all(lab.hosts.map(async (host, index) => {
    // A program that does not end, and whose child goes on after it has been killed.
    const programs = `${host.directory}/bin`;
    await Deno.mkdir(programs);
    await Deno.writeTextFile(`${programs}/iptables`, "#!/bin/sh\nsleep 60 & wait\n", {
      mode: 0o755,
    });
    const daemon = await host.startDaemon({
      env: { PATH: `${programs}:${Deno.env.get("PATH")}` },
    });
    await daemon.process.waitForLine(/External interface is/, { signal });
    const { process } = daemon;
    const startedAt = performance.now();
    process.signal("SIGTERM");
    await process.waitForLine(/SIGTERM received/, { signal });
    if (index > 0) process.signal(index === 1 ? "SIGTERM" : "SIGINT");
    assert.equal((await process.status).code, 0);
    const tookMs = performance.now() - startedAt;
    assert.ok(tookMs < patient(index === 0 ? 3_000 : 1_000), `${index}: ${Math.round(tookMs)} ms`);
  }));
});

labTest("a stopped daemon leaves the way open for the next one", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const [host] = lab.hosts;
  const flags = ["--ip-masq", "--ip-blackhole-route", "--healthz-port=8471"];
  await startReady(host!, { signal, flags });
  const before = await dataPlane(host!, { signal });
  const leases = await lab.leases({ signal });
  const second = await startAfterStop(host!, flags, signal);
  assert.equal(await dataPlane(host!, { signal }), before);
  assert.deepEqual(await lab.leases({ signal }), leases);
  // Nothing was written anew: it only found all in order.
  assert.deepEqual(
    second.process.lines.filter((line) => /: (add|replace|remove) /.test(line)),
    [],
  );
});

async function startAfterStop(
  host: Host,
  flags: readonly string[],
  signal: AbortSignal,
): Promise<Daemon> {
  await host.daemon.stop();
  return await startReady(host, { signal, flags });
}
