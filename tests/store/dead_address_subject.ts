// deno-lint-ignore-file no-console -- the test reads what is printed
/**
 * To be run in a network and mount namespace of its own: a name with three IPv6 addresses that drop
 * everything, and an IPv4 one where etcd is. Prints how long each API took, and the sockets left.
 *
 * @module
 */
import { createLogger } from "../../src/log.ts";
import { openEtcdKeys } from "../../src/store/etcd/open.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { run } from "../support/run.ts";

const signal = AbortSignal.timeout(60_000);
const NAME = "half-dead.example";
const DEAD = ["2001:db8::1", "2001:db8::3", "2001:db8::4"];

async function prepare(): Promise<void> {
  const hosts = await Deno.makeTempFile();
  const lines = [...DEAD, "127.0.0.1"].map((address) => `${address} ${NAME}\n`);
  await Deno.writeTextFile(hosts, lines.join(""));
  await run("mount", ["--bind", hosts, "/etc/hosts"], { signal });
  await Deno.remove(hosts);
  const ip = (command: string) => run("ip", command.split(" "), { signal });
  await ip("link set lo up");
  await ip("link add dead0 type veth peer name dead1");
  await ip("addr add 2001:db8::2/64 dev dead0 nodad");
  await ip("link set dead0 up");
  await ip("link set dead1 up");
  for (const address of DEAD) {
    await ip(`neigh replace ${address} lladdr 02:00:00:00:00:01 dev dead0`);
  }
}

function sockets(): number {
  return [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`).startsWith("socket:");
    } catch {
      return false; // that of the directory itself
    }
  }).length;
}

await prepare();
await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
const log = createLogger({ format: "human", verbosity: 0 });
const tookMs: number[] = [];
const before = sockets();
for (const api of ["v3", "v2"] as const) {
  const startedAt = performance.now();
  await using keys = await openEtcdKeys({
    endpoints: [`http://${NAME}:${etcd.any.port}`],
    api,
    log,
  });
  await (await keys.chosen({ signal })).readConfig({ signal });
  tookMs.push(performance.now() - startedAt);
}
await new Promise((resolve) => setTimeout(resolve, 200));
console.log(JSON.stringify({ tookMs, sockets: sockets() - before }));
await etcd[Symbol.asyncDispose]();
Deno.exit(0);
