/** Reading of kernel parameters. @module */
import { join } from "node:path";
import { SystemCallError } from "../../ffi/libc/errors.ts";
import { Libc } from "../../ffi/libc/open.ts";
import type { Family } from "../net/mod.ts";

export interface SysctlOptions {
  /** @default {"/proc/sys"} */
  readonly root?: string;
}

/**
 * The value of kernel parameter `name` (`net.ipv4.ip_forward`, or for link names with a
 * dot, a path below `/proc/sys`), trimmed; `undefined` if this kernel does not have it, for example
 * because a module is not loaded.
 */
export function readSysctl(name: string, options: SysctlOptions = {}): string | undefined {
  const path = join(options.root ?? "/proc/sys", ...name.split(name.includes("/") ? "/" : "."));
  using libc = Libc.open();
  try {
    return libc.readKernelFile(path).trim();
  } catch (error) {
    if (error instanceof SystemCallError && error.code === "ENOENT") return undefined;
    throw new Error(`Cannot read kernel parameter ${name}`, { cause: error });
  }
}

/** Whether the kernel's own ip_tables holds tables of `family`, in this network namespace. */
export function hasLegacyTables(family: Family): boolean {
  using libc = Libc.open();
  try {
    const name = family === 4 ? "ip_tables_names" : "ip6_tables_names";
    return libc.readKernelFile(`/proc/net/${name}`).trim() !== "";
  } catch {
    return false; // no such module, or no permission
  }
}

/**
 * Whether IPv4 packets that arrive on `link` are forwarded, if the host forwards at all;
 * `undefined` if there is no such link. IPv6 has no such switch.
 */
export function isForwardingFrom(link: string, options: SysctlOptions = {}): boolean | undefined {
  const value = readSysctl(`net/ipv4/conf/${link}/forwarding`, options);
  return value === undefined ? undefined : value !== "0";
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
