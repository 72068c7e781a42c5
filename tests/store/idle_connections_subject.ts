// deno-lint-ignore-file no-console -- the test reads what is printed
/**
 * To be run in a process of its own, which may crash: many connections to the etcd that is named.
 * Says "idle" when each has served; reads again, with all, for each byte of stdin.
 *
 * @module
 */
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import { settingsFor } from "./support.ts";

/** About one in a hundred of such connections ended the process. */
const CONNECTIONS = 200;

const signal = AbortSignal.timeout(120_000);
await using registries = new AsyncDisposableStack();
const all = Array.from(
  { length: CONNECTIONS },
  () => registries.use(new EtcdV3Registry(settingsFor(Deno.args))),
);
const byte = new Uint8Array(1);
do {
  // A few streams at a time each, as a daemon opens them.
  await Promise.all(all.flatMap((each) => [1, 2, 3].map(() => each.readConfig({ signal }))));
  console.log("idle");
} while (await Deno.stdin.read(byte) !== null);
