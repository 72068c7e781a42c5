import { Libc } from "../../ffi/libc/open.ts";

/**
 * Gives back what only the start-up needed: free heap, and the pages of machine code that are not
 * touched again (together about a fifth of the resident memory). To be called once, when the
 * daemon has settled; what is needed after all comes back by itself.
 */
export function releaseStartupMemory(): void {
  using libc = Libc.open();
  libc.mallocTrim();
  libc.releaseProgramText();
}
