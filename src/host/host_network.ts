/** The host's side: the external interface and the kernel's Tables, kept up to date. @module */
import type { Host } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import { enabledFamilies, type NetworkConfig } from "../config/network_config.ts";
import { LibraryNotFoundError } from "../../ffi/shared_library.ts";
import { describeError, OperatorError } from "../errors.ts";
import {
  type ExternalInterface,
  type InterfaceCriteria,
  refreshExternalInterface,
} from "../kernel/external_interface.ts";
import { waitForExternalInterface } from "../kernel/find_interface.ts";
import type { Netlink, NetlinkEvent } from "../kernel/netlink.ts";
import { openNetlink } from "../kernel/netlink/rtnetlink.ts";
import type { InterfaceFacts } from "../kernel/own_address.ts";
import { isForwarding } from "../kernel/sysctl.ts";
import { UnderlayPaths } from "../kernel/underlay_paths.ts";
import { watchKernel } from "../kernel/watch_kernel.ts";
import type { LeaseSubnet } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import { type Address, type Family, type Prefix, sameAddress } from "../net/mod.ts";
import type { AnyStage, ObjectNews } from "../reconcile/reconciler.ts";
import type { Desired } from "../state/desired.ts";
import type { KindId } from "../state/mod.ts";
import type { InterfaceStatus } from "../status/model.ts";
import { Cell, type ReadableCell } from "../util/cell.ts";
import { present } from "../util/present.ts";
import type { HostFacts } from "./host_needs.ts";
import { isShortage, retryBriefly } from "../status/patience.ts";
import { loadCarriedLibraries } from "./carried_libraries.ts";
import { mayChangeNetwork } from "./host_rights.ts";
import { type Companions, KernelTables, linkAlias } from "../kernel/kernel_tables.ts";
import { ReservedSpace } from "./reserved_space.ts";

/** How long a DHCP address may be gone before a permanent one beside it is published instead. */
const STAND_IN_MS = 60_000;

export interface HostNetworkOptions {
  readonly options: Options;
  readonly network: NetworkConfig;
  /** Networks that an earlier run served, where its leftovers are ours. */
  readonly formerNetworks: readonly Prefix[];
  /** Its subnet, in which pods may still have addresses. */
  readonly formerSubnet: LeaseSubnet | undefined;
  /** What the backend calls at addresses that no pod may have. */
  readonly services: HostFacts["services"];
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onStatus: (text: string) => void;
}

/**
 * Opens netlink and chooses the external interface, waiting for one up to `--wait-network`.
 *
 * @throws {OperatorError} If there is none in time, with each candidate and why it lost.
 */
export async function openHostNetwork(options: HostNetworkOptions): Promise<HostNetwork> {
  const { log, signal, onStatus, network } = options;
  await using stack = new AsyncDisposableStack();
  const netlink = stack.use(await openHostKernel({ log, signal }));
  const criteria = criteriaOf(options.options, network);
  const { found, explain, facts } = await waitForExternalInterface(netlink, criteria, {
    signal,
    timeoutMs: options.options.waitNetworkSeconds * 1_000,
    onWaiting(explain) {
      const reason = explain.join("; ") || "there is no default route";
      log.warn(`No external interface yet: ${reason}; waiting for one`);
      onStatus(`Waiting for an external interface: ${reason}`);
    },
  });
  for (const line of explain) log.debug(line);
  log.info(`External interface is ${found.link}: ${found.reason}`, {
    address: found.address,
    addressV6: found.addressV6,
    publicIp: found.publicIp,
    publicIpv6: found.publicIpv6,
    mtu: found.mtuBytes,
  });
  for (const family of criteria.families) warnOfForwardingOff(family, log);
  const resources = stack.move();
  // From now on only the interface's own state matters, and routes may be very many.
  return new HostNetwork(options, netlink, criteria, found, { ...facts, routes: [] }, resources);
}

function warnOfForwardingOff(family: Family, log: Logger): void {
  let isOn: boolean | undefined;
  try {
    isOn = isForwarding(family);
  } catch (error) {
    log.warn(`Cannot see whether this host forwards IPv${family} packets: ${describeError(error)}`);
  }
  if (isOn !== false) return;
  log.warn(
    `This host forwards no IPv${family} packets, so pods reach no other host; set ` +
      (family === 4 ? "net.ipv4.ip_forward=1" : "net.ipv6.conf.all.forwarding=1"),
  );
}

/**
 * Opens the kernel's network configuration, with the libraries that the binary carries where the
 * host has none. A brief shortage is waited out.
 *
 * @throws {OperatorError} If libnl is missing, naming its packages.
 */
export async function openHostKernel(
  { log, signal, open = openNetlink }: {
    readonly log: Logger;
    readonly signal: AbortSignal;
    readonly open?: () => Netlink;
  },
): Promise<Netlink> {
  let carried: readonly string[] = [];
  const attempt = () => {
    carried = loadCarriedLibraries();
    return open();
  };
  // libnl has no error of its own for a shortage of descriptors.
  const mayPass = (error: unknown) => !(error instanceof LibraryNotFoundError) || isShortage(error);
  try {
    const netlink = await retryBriefly(attempt, { signal, mayPass });
    if (carried.length > 0) log.info(`Using the carried ${carried.join(", ")}: the host has none`);
    return netlink;
  } catch (error) {
    if (!(error instanceof LibraryNotFoundError)) throw error;
    throw new OperatorError(error.message, { cause: error });
  }
}

/** The host's side: the external interface, and the kernel's Tables. */
export class HostNetwork implements AsyncDisposable {
  readonly #options: HostNetworkOptions;
  readonly netlink: Netlink;
  readonly #criteria: InterfaceCriteria;
  readonly #resources: AsyncDisposable;
  /** How the kernel would send to other hosts. */
  readonly underlay: UnderlayPaths;
  /** The alias that marks this daemon's links. */
  readonly linkAlias: string;
  readonly #tables: KernelTables;
  /** Addresses that are not for pods. */
  readonly reserved: ReservedSpace;
  #found: ExternalInterface;
  /** The lists that last confirmed `#found`. */
  #facts: InterfaceFacts;
  /** Since when only a stand-in for the published address is left. */
  #standInSince: number | undefined;
  #standInTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #host: Cell<Host>;

  constructor(
    options: HostNetworkOptions,
    netlink: Netlink,
    criteria: InterfaceCriteria,
    found: ExternalInterface,
    facts: InterfaceFacts,
    resources: AsyncDisposable,
  ) {
    this.#options = options;
    this.netlink = netlink;
    this.#criteria = criteria;
    this.#found = found;
    this.#facts = facts;
    this.#resources = resources;
    this.underlay = new UnderlayPaths(netlink);
    this.linkAlias = linkAlias(options.options.subnetFile);
    const { network, formerNetworks, log } = options;
    const networks = [network.ipv4?.network, network.ipv6?.network, ...formerNetworks];
    this.#tables = new KernelTables({
      netlink,
      alias: this.linkAlias,
      networks: networks.filter((prefix) => prefix !== undefined),
      externalLink: found.link,
      log,
    });
    this.reserved = new ReservedSpace({
      netlink,
      network,
      options: options.options,
      services: options.services,
      facts,
      externalLink: found.link,
      alias: this.linkAlias,
      own: options.formerSubnet,
      log,
    });
    this.#host = new Cell(this.#describeHost(), sameHost);
    this.reserved.needs.subscribe(() => this.#host.set(this.#describeHost()));
  }

  /** The external interface at present, and what the host needs for itself. */
  get host(): ReadableCell<Host> {
    return this.#host;
  }

  #describeHost(): Host {
    return { ...this.#found, needs: this.reserved.needs.value.needs };
  }

  /** For the status page. */
  describe(): InterfaceStatus {
    return { ...this.#found };
  }

  /** Whether this process may change the host's network. */
  mayChange(options: { readonly signal: AbortSignal }): Promise<boolean> {
    return mayChangeNetwork(this.netlink, options);
  }

  /** The kernel's Tables, in the order of creation; `isPeer` recognises addresses of other hosts. */
  stages(
    desired: () => Desired | undefined,
    isPeer: (address: Address) => boolean,
    companions?: Companions,
  ): AnyStage[] {
    return this.#tables.stages(desired, isPeer, companions);
  }

  /**
   * Follows the kernel: `onDrift` asks for a round and says which Tables are to be listed in it,
   * and the external interface is looked at again.
   */
  async watch(
    { signal, onDrift, onNews }: {
      readonly signal: AbortSignal;
      readonly onDrift: (kinds?: Iterable<KindId>) => void;
      /** Takes news of single objects; returns whether `onDrift` is to be called for them. */
      readonly onNews: (news: ObjectNews) => boolean;
    },
  ): Promise<never> {
    const { log } = this.#options;
    let kinds = new Set<KindId>();
    let all = false;
    /** A round is due. */
    let due = false;
    let look = false;
    const isOwn = (destination: Prefix) => this.#tables.isOwnDestination(destination);
    const note = (event: NetlinkEvent) => {
      const drift = this.#tables.driftOf(event);
      if (drift === "all") all = due = true;
      else if ("key" in drift) due = onNews(drift) || due;
      else drift.forEach((kind) => kinds.add(kind));
      // A round begins with the underlay's paths.
      if (this.underlay.observe(event, isOwn) || kinds.size > 0) due = true;
      if (this.#tables.concernsExternalLink(event)) look = true;
      this.reserved.observe(event);
      return due || look;
    };
    const looking = this.reserved.run({ signal });
    const watching = watchKernel(this.netlink, {
      signal,
      note,
      onChange: () => {
        if (due) onDrift(all ? undefined : kinds);
        if (look) this.#lookAgainSafely(signal);
        kinds = new Set();
        all = due = look = false;
      },
      onError: (error) => log.warn(`Kernel events are not followed: ${describeError(error)}`),
    });
    const [never] = await Promise.all([looking, watching]);
    return never;
  }

  #lookAgainSafely(signal: AbortSignal): void {
    this.#lookAgain(signal).catch((error) => {
      if (signal.aborted) return;
      this.#options.log.warn(describeError(error, "Cannot look at the external interface"));
    });
  }

  /**
   * Adopts changed addresses and MTU of the interface chosen at start; while it has no usable
   * address, the former ones are kept.
   */
  async #lookAgain(signal: AbortSignal): Promise<void> {
    const facts = {
      links: await this.netlink.listLinks({ signal }),
      addresses: await this.netlink.listAddresses({ signal }),
      routes: [],
    };
    const found = refreshExternalInterface(this.#found, this.#criteria, facts, this.#facts);
    if (!found || this.#mustWait(found, signal)) return;
    this.#facts = facts;
    if (sameInterface(found, this.#found)) return;
    const { link, mtuBytes, address, addressV6, publicIp, publicIpv6 } = found;
    const changed = { mtuBytes, address, addressV6, publicIp, publicIpv6 };
    this.#options.log.info(`External interface ${link} has changed`, changed);
    this.#found = found;
    this.#host.set(this.#describeHost());
  }

  /** Whether `found` is a stand-in for an address that may return soon, such as by DHCP. */
  #mustWait({ standIn }: ExternalInterface, signal: AbortSignal): boolean {
    clearTimeout(this.#standInTimer);
    const isNew = standIn === true && this.#found.standIn === undefined;
    this.#standInSince = isNew ? this.#standInSince ?? performance.now() : undefined;
    if (this.#standInSince === undefined) return false;
    const leftMs = this.#standInSince + STAND_IN_MS - performance.now();
    if (leftMs <= 0) return false;
    this.#standInTimer = setTimeout(() => this.#lookAgainSafely(signal), leftMs);
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#standInTimer);
    await this.#resources[Symbol.asyncDispose]();
  }
}

const ADDRESSES = ["address", "addressV6", "publicIp", "publicIpv6"] as const;

function sameInterface(a: Host, b: Host): boolean {
  return a.mtuBytes === b.mtuBytes && ADDRESSES.every((name) => sameAddress(a[name], b[name]));
}

function sameHost(a: Host, b: Host): boolean {
  return sameInterface(a, b) && a.needs === b.needs;
}

function criteriaOf(options: Options, network: NetworkConfig): InterfaceCriteria {
  return present({
    families: enabledFamilies({ network }).map((each) => each.network.family),
    interfaces: options.iface,
    patterns: options.ifaceRegex,
    canReach: options.ifaceCanReach,
    publicIp: options.publicIp,
    publicIpv6: options.publicIpv6,
  });
}
