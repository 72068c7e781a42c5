/** The capabilities of this process. @module */
import { Libc } from "../../ffi/libc/open.ts";

/** Bits of the capabilities that flanneld may need, <linux/capability.h>. */
const BITS = { CAP_NET_ADMIN: 12n, CAP_NET_RAW: 13n } as const;

/** A capability by its C name. */
export type Capability = keyof typeof BITS;

/** The capabilities of the above that this process has, in its own user namespace. */
export function effectiveCapabilities(): ReadonlySet<Capability> {
  using libc = Libc.open();
  return parseCapabilities(libc.readKernelFile("/proc/self/status"));
}

/** {@linkcode effectiveCapabilities} in the text of /proc/<pid>/status (proc(5)). */
export function parseCapabilities(status: string): ReadonlySet<Capability> {
  const mask = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(status)?.[1];
  if (mask === undefined) throw new Error("Cannot read the capabilities in /proc/self/status");
  const names = Object.keys(BITS) as Capability[];
  return new Set(names.filter((name) => (BigInt(`0x${mask}`) >> BITS[name]) & 1n));
}
