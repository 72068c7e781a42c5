/**
 * Waits until the process that started it is gone, then removes what it left. Started by
 * `openNamespaces()`, which ends it on an orderly way out.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import { removeLeftovers } from "./namespace.ts";

// Ctrl-C in a terminal reaches the whole process group, and this one has to outlive the others.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.addSignalListener(signal, () => {});
}
const { signal } = new AbortController();
for await (const _ of Deno.stdin.readable) { /* nothing is ever sent */ }
// The pipe ends a moment before the process does; then its sets have no owner.
for (let round = 0; round < 20; round++) {
  await delay(100, { signal });
  if ((await removeLeftovers({ signal })).length > 0) break;
}
Deno.exit(0);
