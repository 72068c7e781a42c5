/**
 * What this process may do on the host, looked at before a lease is taken that it could not serve.
 * What needs no right is not asked for any: backend `alloc` without traffic rules runs as anyone.
 *
 * @module
 */
import { basename } from "node:path";
import { SystemCallError } from "../../ffi/libc/errors.ts";
import { O_RDONLY } from "../../ffi/libc/constants.ts";
import { Libc } from "../../ffi/libc/open.ts";
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import type { Options } from "../cli/options.ts";
import { OperatorError } from "../errors.ts";
import type { Firewall } from "../firewall/mod.ts";
import { type Capability, effectiveCapabilities } from "../kernel/capabilities.ts";
import type { Netlink } from "../kernel/netlink.ts";

type RightsOptions = Pick<Options, "ipMasq" | "iptablesForwardRules" | "ipBlackholeRoute">;

/** The backend, and what it needs. */
interface RightsNetwork {
  readonly backend: {
    readonly type: string;
    readonly changesKernel: boolean;
    readonly devices: readonly string[];
  };
}

const HOW_TO_GIVE = "run it as root, with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in its " +
  "systemd unit, or with capabilities.add [NET_ADMIN, NET_RAW] in the container's securityContext " +
  "(docker: --cap-add)";

/** What of options and config changes the kernel's network, for the message. */
export function kernelChanges(
  options: RightsOptions,
  { backend }: RightsNetwork,
): readonly string[] {
  return [
    ...(backend.changesKernel ? [`backend ${backend.type}`] : []),
    ...(options.iptablesForwardRules ? ["--iptables-forward-rules"] : []),
    ...(options.ipMasq ? ["--ip-masq"] : []),
    ...(options.ipBlackholeRoute ? ["--ip-blackhole-route"] : []),
  ];
}

/**
 * Checks what follows from config and options alone.
 *
 * @throws {OperatorError} With every right that is missing, and how to give it.
 */
export function requireRights(
  options: RightsOptions,
  configured: RightsNetwork,
  capabilities: ReadonlySet<Capability> = effectiveCapabilities(),
): void {
  const faults: string[] = [];
  const changes = kernelChanges(options, configured);
  if (changes.length > 0 && !capabilities.has("CAP_NET_ADMIN")) {
    faults.push(lackOf("CAP_NET_ADMIN", changes.join(", ")));
  }
  const { type, devices } = configured.backend;
  for (const device of devices) {
    const fault = deviceFault(device, `backend ${type}`);
    if (fault !== undefined) faults.push(fault);
  }
  if (faults.length > 0) throw new OperatorError(faults.join("; "));
}

/**
 * Checks what only the host itself can tell: which iptables it has, and whether the network belongs
 * to the user namespace that the capabilities are of.
 *
 * @throws {OperatorError} As above.
 */
export async function requireRightsOfHost(
  options: RightsOptions,
  configured: RightsNetwork,
  { firewall, mayChange, capabilities = effectiveCapabilities() }: {
    readonly firewall: Pick<Firewall, "describe">;
    /** See {@linkcode mayChangeNetwork}. */
    readonly mayChange: () => Promise<boolean>;
    readonly capabilities?: ReadonlySet<Capability>;
  },
): Promise<void> {
  const changes = kernelChanges(options, configured);
  if (changes.length > 0 && !await mayChange()) {
    throw new OperatorError(
      lackOf("CAP_NET_ADMIN", changes.join(", "), "in the user namespace that owns this network"),
    );
  }
  const { program } = firewall.describe();
  // The nft variant asks over netlink, the legacy one opens a raw socket.
  if (/\(legacy\)/.test(program) && !capabilities.has("CAP_NET_RAW")) {
    throw new OperatorError(lackOf("CAP_NET_RAW", program));
  }
}

/** Whether the kernel lets this process change its network: it is asked to remove no link at all. */
export async function mayChangeNetwork(
  netlink: Pick<Netlink, "change">,
  options: { readonly signal: AbortSignal },
): Promise<boolean> {
  const value = { index: NO_LINK, name: "no link" };
  const [error] = await netlink.change([{ verb: "remove", noun: "link", value }], options);
  return !(error instanceof NetlinkError && (error.code === "EPERM" || error.code === "EACCES"));
}

/** The kernel numbers links from 1 and never comes this far. */
const NO_LINK = 2 ** 31 - 1;

/** @throws {OperatorError} If this process may not remove what is to be removed. */
export function requireCleanUpRights(
  { mayChange = effectiveCapabilities().has("CAP_NET_ADMIN") }: { mayChange?: boolean } = {},
): void {
  if (!mayChange) throw new OperatorError(lackOf("CAP_NET_ADMIN", "cleanup"));
}

function lackOf(capability: Capability, what: string, where = ""): string {
  const place = where === "" ? "" : ` ${where}`;
  return `The capability ${capability} is missing${place}, which ${what} needs: ${HOW_TO_GIVE}`;
}

/** Why `device` cannot be opened, if so. */
function deviceFault(device: string, user: string): string | undefined {
  using libc = Libc.open();
  try {
    libc.close(libc.openFile(device, O_RDONLY));
    return undefined;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    const module = `load it with "modprobe ${basename(device)}"`;
    const advice = error.code === "ENOENT"
      ? `${module}, or give the container the device ${device}`
      : error.code === "ENODEV"
      ? module
      : `give the container the device ${device}, or run as root`;
    return `Cannot open ${device}, which ${user} needs (${error.code}): ${advice}`;
  }
}
