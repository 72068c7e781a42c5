import assert from "node:assert/strict";
import { connectSimulator, type SimulatorControl } from "./control.ts";
import { EXAMPLE, exampleConfig } from "./example.ts";
import type { ProcessConfig } from "./mod.ts";

interface Running extends AsyncDisposable {
  readonly control: SimulatorControl;
  readonly process: Deno.ChildProcess;
  /** Of the APIs and of the metadata service. */
  readonly ports: readonly [number, number];
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

async function start(): Promise<Running> {
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/control.sock`;
  const ports = [freePort(), freePort()] as const;
  const api = `127.0.0.1:${ports[0]}`;
  const config: ProcessConfig = {
    listen: { vpc: api, ecs: api, sts: api, metadata: `127.0.0.1:${ports[1]}` },
    controlSocket: socket,
    cloud: exampleConfig(),
  };
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(config));
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", new URL("main.ts", import.meta.url).pathname]
      .concat(`${directory}/config.json`),
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const reader = process.stdout.getReader();
  const { value } = await reader.read();
  assert.equal(new TextDecoder().decode(value), "ready\n");
  await reader.cancel();
  return {
    control: connectSimulator(socket),
    process,
    ports,
    async [Symbol.asyncDispose]() {
      await process.stdin.close().catch(() => {});
      await process.status;
      await Deno.remove(directory, { recursive: true });
    },
  };
}

Deno.test("the process serves, is controlled from outside, and ends on SIGTERM", async () => {
  await using simulator = await start();
  const { control, ports, process } = simulator;
  const response = await fetch(`http://127.0.0.1:${ports[0]}/?Action=DescribeVpcs`);
  assert.equal((await response.json()).Code, "MissingVersion");
  const { version, networkInterfaces } = await control.snapshot();
  assert.ok(networkInterfaces.some((each) => each.sourceDestCheck));
  const signal = AbortSignal.timeout(20_000);
  const changed = control.waitForChange(version, { signal });
  await control.addRoute(EXAMPLE.systemTableId, {
    destination: "10.24.1.0/24",
    nextHops: [{ type: "Instance", id: EXAMPLE.instanceIds[0] }],
  });
  const { forwarding, version: newer } = await changed;
  assert.ok(newer > version);
  assert.deepEqual(forwarding.find((each) => each.destination === "10.24.1.0/24"), {
    routeTableId: EXAMPLE.systemTableId,
    destination: "10.24.1.0/24",
    instanceId: "i-node-1",
    networkInterfaceId: "eni-node-1",
    via: "192.168.1.11",
  });
  assert.equal((await control.waitForChange(0, { signal })).version, newer);
  const never = control.waitForChange(newer, { signal: AbortSignal.timeout(50) });
  await assert.rejects(never, { name: "TimeoutError" });
  const nowhere = { routeTableId: "vtb-none", destination: "10.0.0.0/8" };
  await assert.rejects(
    control.deleteRoute(nowhere),
    /Cannot find route 10\.0\.0\.0\/8 in vtb-none/,
  );
  assert.equal((await control.requests()).at(0)?.action, "DescribeVpcs");
  process.kill("SIGTERM");
  assert.equal((await process.status).code, 0);
});

Deno.test("the process ends when its standard input does, and strangers get no metadata", async () => {
  await using simulator = await start();
  const { control, ports, process } = simulator;
  const url = `http://127.0.0.1:${ports[1]}/latest/meta-data/instance-id`;
  await assert.rejects(fetch(url, { signal: AbortSignal.timeout(150) }), { name: "TimeoutError" });
  // From now on this test's own address is an instance's.
  await control.addInstance({ id: "i-loopback", vSwitchId: "vsw-b", privateIp: "127.0.0.1" });
  assert.equal(await (await fetch(url)).text(), "i-loopback");
  await process.stdin.close();
  assert.equal((await process.status).code, 0);
});
