/** Returns memory that only the start-up needed. @module */
import { Libc } from "../../ffi/libc/open.ts";

/** What V8 offers with `--expose-gc`, as the binary has it. */
const { gc } = globalThis as { readonly gc?: (options: Readonly<Record<string, string>>) => void };

/**
 * Returns what only the start-up needed: garbage, free heap, and pages of the program's file
 * (together about half of the resident memory). To be called once the daemon has settled; code that
 * is still needed is faulted back in.
 */
export function releaseStartupMemory(): void {
  // Also gives the free pages back. It takes some 50 ms, for once and when nothing is due.
  gc?.({ type: "major", execution: "sync", flavor: "last-resort" });
  using libc = Libc.open();
  libc.mallocTrim();
  libc.releaseProgramPages();
}
