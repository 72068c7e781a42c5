/**
 * Checks this process's permissions before it takes a lease that it could not serve. Only what is
 * needed is checked: backend `alloc` without traffic rules runs as any user.
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

/** The options and config that change the kernel's network, for the message. */
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
 * Checks what config and options require.
 *
 * @throws {OperatorError} With every missing permission, and how to grant it.
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
 * Checks what depends on the host: its variant of iptables, and whether the network namespace
 * belongs to the user namespace of the capabilities.
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
  // The nft variant uses netlink, the legacy one a raw socket.
  if (/\(legacy\)/.test(program) && !capabilities.has("CAP_NET_RAW")) {
    throw new OperatorError(lackOf("CAP_NET_RAW", program));
  }
}

/** Whether the kernel lets this process change its network: removes a link that cannot exist. */
export async function mayChangeNetwork(
  netlink: Pick<Netlink, "change">,
  options: { readonly signal: AbortSignal },
): Promise<boolean> {
  const value = { index: NO_LINK, name: "no link" };
  const [error] = await netlink.change([{ verb: "remove", noun: "link", value }], options);
  return !(error instanceof NetlinkError && (error.code === "EPERM" || error.code === "EACCES"));
}

/** An index that no link reaches. */
const NO_LINK = 2 ** 31 - 1;

/** @throws {OperatorError} If this process may not clean up. */
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
