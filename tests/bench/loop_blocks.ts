/**
 * The daemon, with a log line whenever its event loop was busy for more than a few milliseconds
 * without a pause. Counted is the processor's time of the loop's thread: neither waiting for a
 * processor nor the work of other threads keeps the loop busy.
 *
 * @module
 */
import { runCommand } from "../../src/app/command.ts";

const TICK_MS = 1;
const LOGGED_MS = 4;
const CLOCK_THREAD_CPUTIME_ID = 3;

const libc = Deno.dlopen("libc.so.6", {
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
});
const timespec = new BigInt64Array(2);
const encoder = new TextEncoder();

function threadMs(): number {
  libc.symbols.clock_gettime(CLOCK_THREAD_CPUTIME_ID, timespec);
  return Number(timespec[0]! * 1_000_000_000n + timespec[1]!) / 1e6;
}

let before = threadMs();
setInterval(() => {
  const busyMs = threadMs() - before;
  // Not by the console, which the daemon keeps silent.
  if (busyMs >= LOGGED_MS) {
    Deno.stderr.writeSync(encoder.encode(`event loop busy for ${busyMs.toFixed(1)} ms\n`));
  }
  before = threadMs();
}, TICK_MS);

Deno.exit(await runCommand(Deno.args));
