/** Returns memory that only the start-up needed. @module */
import { Libc } from "../../ffi/libc/open.ts";

/**
 * Returns what only the start-up needed: free heap, and pages of the program's file (together about a
 * third of the resident memory). To be called once the daemon has settled; code that is still
 * needed is faulted back in.
 */
export function releaseStartupMemory(): void {
  using libc = Libc.open();
  libc.mallocTrim();
  libc.releaseProgramPages();
}
