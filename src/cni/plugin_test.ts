/** The CNI plug-in's calls, with programs of the test's own and with real ones as delegates. */
import assert from "node:assert/strict";
import { createTestNamespace } from "../../tests/kernel/namespace.ts";
import { runPlugin } from "./plugin.ts";

const ENV_V4 =
  "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

/** What upstream's plug-in renders for the same config and subnet.env. */
const UPSTREAMS_STATE =
  `{"cniVersion":"1.0.0","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.5.72.0/24"}]],` +
  `"routes":[{"dst":"10.5.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}`;

/** A directory with subnet.env and a delegate that records its input and does as its test says. */
async function openRig(delegate = "echo '{}'") {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-cni-" });
  await Deno.mkdir(`${directory}/bin`);
  await Deno.writeTextFile(`${directory}/subnet.env`, ENV_V4);
  await Deno.writeTextFile(
    `${directory}/bin/bridge`,
    `#!/bin/sh\ncat > ${directory}/input.$CNI_COMMAND\n${delegate}\n`,
    { mode: 0o755 },
  );
  const conf = {
    cniVersion: "1.0.0",
    name: "cbr0",
    type: "flannel",
    subnetFile: `${directory}/subnet.env`,
    dataDir: `${directory}/data`,
    delegate: { hairpinMode: true },
  };
  return {
    conf,
    state: `${directory}/data/c1`,
    path: `${directory}/bin`,
    input: (verb: string) => Deno.readTextFile(`${directory}/input.${verb}`),
    /** Runs a verb; the exit code, and standard output as JSON where there is any. */
    async call(verb: string, changes: object = {}, variables: Record<string, string> = {}) {
      const { code, stdout } = await runPlugin({
        environment: {
          PATH: Deno.env.get("PATH")!,
          CNI_COMMAND: verb,
          CNI_CONTAINERID: "c1",
          CNI_IFNAME: "eth0",
          CNI_NETNS: "/run/netns/none",
          CNI_PATH: `${directory}/none:${directory}/bin`,
          ...variables,
        },
        readInput: () => Promise.resolve(JSON.stringify({ ...conf, ...changes })),
        signal: new AbortController().signal,
      });
      return { code, result: stdout === "" ? undefined : JSON.parse(stdout) };
    },
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}

const isThere = (path: string) => Deno.stat(path).then(() => true, () => false);

Deno.test("ADD leaves upstream's state and hands the same to the delegate", async () => {
  await using rig = await openRig();
  assert.deepEqual(await rig.call("ADD"), { code: 0, result: { cniVersion: "1.0.0" } });
  assert.equal(await Deno.readTextFile(rig.state), UPSTREAMS_STATE);
  assert.equal(await rig.input("ADD"), UPSTREAMS_STATE);
  assert.equal((await Deno.stat(rig.state)).mode! & 0o777, 0o600);
  assert.equal((await Deno.stat(rig.conf.dataDir)).mode! & 0o777, 0o700);
});

Deno.test("DEL gives the delegate the state of ADD without subnet.env, and a second one succeeds", async () => {
  await using rig = await openRig();
  await rig.call("ADD");
  await Deno.remove(rig.conf.subnetFile);
  assert.deepEqual(await rig.call("DEL"), { code: 0, result: undefined });
  assert.equal(await rig.input("DEL"), UPSTREAMS_STATE);
  assert.equal(await isThere(rig.state), false);
  assert.deepEqual(await rig.call("DEL"), { code: 0, result: undefined });
});

Deno.test("a DEL that the delegate fails keeps the state and the delegate's code", async () => {
  await using rig = await openRig(
    `[ $CNI_COMMAND = ADD ] && exit; echo '{"code":11,"msg":"busy"}'; exit 1`,
  );
  await Deno.mkdir(rig.conf.dataDir);
  await Deno.writeTextFile(rig.state, UPSTREAMS_STATE);
  assert.deepEqual(await rig.call("DEL"), {
    code: 1,
    result: { cniVersion: "1.0.0", code: 11, msg: "failed to delegate del: busy" },
  });
  assert.ok(await isThere(rig.state));
});

Deno.test("a state file that a crash cut short does not keep a pod from ending", async () => {
  await using rig = await openRig();
  await Deno.mkdir(rig.conf.dataDir);
  await Deno.writeTextFile(rig.state, UPSTREAMS_STATE.slice(0, 40));
  assert.deepEqual(await rig.call("DEL"), { code: 0, result: undefined });
  assert.ok(await isThere(rig.state));
});

Deno.test("CHECK hands on the former result, and tells a container of a former subnet", async () => {
  await using rig = await openRig();
  const prevResult = { cniVersion: "1.0.0", ips: [] };
  assert.equal((await rig.call("CHECK", { prevResult })).result.code, 3, "not added");
  await rig.call("ADD");
  assert.deepEqual(await rig.call("CHECK", { prevResult }), { code: 0, result: undefined });
  assert.deepEqual(JSON.parse(await rig.input("CHECK")).prevResult, prevResult);
  await Deno.writeTextFile(rig.conf.subnetFile, ENV_V4.replace("72.1", "73.1"));
  assert.equal((await rig.call("CHECK", { prevResult })).result.code, 100);
});

Deno.test("STATUS says 50, and ADD 11, while there is no subnet.env", async () => {
  await using rig = await openRig();
  const cniVersion = "1.1.0";
  assert.deepEqual(await rig.call("STATUS", { cniVersion }), { code: 0, result: undefined });
  await Deno.remove(rig.conf.subnetFile);
  assert.equal((await rig.call("STATUS", { cniVersion })).result.code, 50);
  assert.equal((await rig.call("ADD", { cniVersion })).result.code, 11);
});

Deno.test("GC removes the state of containers that are gone, of its own network alone", async () => {
  await using rig = await openRig();
  for (const id of ["c1", "c2", "c3"]) await rig.call("ADD", {}, { CNI_CONTAINERID: id });
  await rig.call("ADD", { name: "other" }, { CNI_CONTAINERID: "o1" });
  const attachments = [{ containerID: "c2", ifname: "eth0" }];
  const changes = { cniVersion: "1.1.0", "cni.dev/valid-attachments": attachments };
  assert.deepEqual(await rig.call("GC", changes), { code: 0, result: undefined });
  const left = (await Array.fromAsync(Deno.readDir(rig.conf.dataDir))).map(({ name }) => name);
  assert.deepEqual(left.sort(), ["c2", "o1"]);
  assert.deepEqual(JSON.parse(await rig.input("GC"))["cni.dev/valid-attachments"], attachments);
});

Deno.test("VERSION names all versions, and reads no config", async () => {
  const environment = { CNI_COMMAND: "VERSION" };
  const readInput = () => Promise.reject(new Error("read"));
  const { signal } = new AbortController();
  const { code, stdout } = await runPlugin({ environment, readInput, signal });
  assert.deepEqual([code, JSON.parse(stdout)], [0, {
    cniVersion: "1.1.0",
    supportedVersions: ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
  }]);
});

Deno.test("a call that cannot be served says so with the specification's code", async () => {
  await using rig = await openRig();
  const code = async (...call: Parameters<typeof rig.call>) =>
    (await rig.call(...call)).result.code;
  assert.equal(await code("MEND"), 4);
  assert.equal(await code("ADD", {}, { CNI_NETNS: "" }), 4);
  assert.equal(await code("ADD", {}, { CNI_CONTAINERID: "../c" }), 4);
  assert.equal(await code("ADD", {}, { CNI_IFNAME: "sixteen-letters-" }), 4);
  assert.equal(await code("ADD", { name: "a/b" }), 7);
  assert.equal(await code("ADD", { cniVersion: "9.0.0" }), 1);
  assert.equal(await code("CHECK", { cniVersion: "0.3.1" }), 1);
  assert.equal(await code("GC"), 1);
  assert.equal(await code("ADD", { subnetFile: 1 }), 6);
  assert.equal(await code("ADD", { delegate: { ipam: {} } }), 7);
  assert.equal(await code("ADD", { delegate: { type: "absent" } }), 999);
});

const installed = ["/usr/lib/cni", "/opt/cni/bin"].find((directory) => {
  try {
    return ["bridge", "host-local"].every((name) => Deno.statSync(`${directory}/${name}`).isFile);
  } catch {
    return false;
  }
});

Deno.test({
  name: "the real bridge and host-local give a namespace its address, and take it back" +
    (installed ? "" : " [skipped: needs the reference plug-ins of containernetworking]"),
  ignore: installed === undefined,
  async fn() {
    await using rig = await openRig();
    await using host = await createTestNamespace();
    await using pod = await createTestNamespace();
    // A plug-in runs in its host's namespace: `ip netns exec` stands between.
    await Deno.writeTextFile(
      `${rig.path}/bridge`,
      `#!/bin/sh\nCNI_PATH=${installed} exec ip netns exec ${host.name} ${installed}/bridge\n`,
    );
    const ipam = { dataDir: `${rig.conf.dataDir}-ipam` };
    const delegate = { ...rig.conf.delegate, bridge: "cni-test", isDefaultGateway: true };
    const call = (verb: string, more: object = {}) =>
      rig.call(verb, { delegate, ipam, ...more }, { CNI_NETNS: pod.path });
    const { code, result } = await call("ADD");
    assert.equal(code, 0, JSON.stringify(result));
    assert.equal(result.ips[0].address, "10.5.72.2/24");
    assert.match(await pod.run("ip", "addr", "show", "eth0"), /mtu 1450 [^]*10\.5\.72\.2\/24/);
    assert.match(await pod.run("ip", "route"), /default via 10\.5\.72\.1 /);
    assert.match(await pod.run("ip", "route"), /10\.5\.0\.0\/16 via 10\.5\.72\.1 /);
    assert.deepEqual(await call("CHECK", { prevResult: result }), { code: 0, result: undefined });
    assert.deepEqual(await call("DEL"), { code: 0, result: undefined });
    assert.doesNotMatch(await pod.run("ip", "link"), /eth0/);
    const reserved = await Array.fromAsync(Deno.readDir(`${ipam.dataDir}/cbr0`));
    assert.ok(!reserved.some(({ name }) => name === "10.5.72.2"));
  },
});
