import { join } from "node:path";
import { SystemCallError } from "../../ffi/libc/errors.ts";
import { Libc } from "../../ffi/libc/open.ts";
import type { Family } from "../net/mod.ts";

/** Options of the functions in this module. */
export interface SysctlOptions {
  /** @default {"/proc/sys"} */
  readonly root?: string;
}

/**
 * The value of kernel parameter `name` (`net.ipv4.ip_forward`) without surrounding blanks;
 * `undefined` if this kernel does not have it, for instance since a module is not loaded.
 */
export function readSysctl(name: string, options: SysctlOptions = {}): string | undefined {
  const path = join(options.root ?? "/proc/sys", ...name.split("."));
  using libc = Libc.open();
  try {
    return libc.readKernelFile(path).trim();
  } catch (error) {
    if (error instanceof SystemCallError && error.code === "ENOENT") return undefined;
    throw new Error(`Cannot read kernel parameter ${name}`, { cause: error });
  }
}

/**
 * Whether the host forwards packets of `family` between links; `undefined` where the kernel lacks
 * the family.
 */
export function isForwarding(
  family: Family,
  options: SysctlOptions = {},
): boolean | undefined {
  const name = family === 4 ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding";
  const value = readSysctl(name, options);
  return value === undefined ? undefined : value !== "0";
}
