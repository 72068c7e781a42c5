/**
 * What the backends that program the kernel need to know: the MACs of their VXLAN devices, and which
 * peers are on-link.
 *
 * @module
 */
import {
  type HostGwConfig,
  type HostGwFacts,
  type IpipConfig,
  type IpipFacts,
  readVtepMac,
  type VxlanConfig,
  type VxlanFacts,
  vxlanLinkName,
} from "../backends/mod.ts";
import { LINK_ALIAS_PREFIX } from "../kernel/link_table.ts";
import { readSysctl } from "../kernel/sysctl.ts";
import type { Lease, LeaseAttributes } from "../lease/lease.ts";
import type { ChangedLeases, Peers } from "../lease/peers.ts";
import { type Address, type Family, MacAddress } from "../net/mod.ts";
import { isOwnedBy } from "../lease/ownership.ts";
import type { BackendStatus, PathsStatus } from "../status/model.ts";
import { Cell } from "../util/cell.ts";
import { inSlices } from "../util/slices.ts";
import type { BackendRuntime, RuntimeContext } from "./runtime.ts";

/** Peers looked at between two steps; some tenths of a millisecond. */
const STEP_PEERS = 256;

/** MACs of the families' VXLAN devices. */
type Macs = VxlanFacts["macs"];

/** At most this many peers are listed on the status page. */
const LISTED_PEERS = 1_000;

/** Opens what `host-gw` needs to know: which peers are on-link. */
export function openHostGw(
  context: RuntimeContext,
  _config: HostGwConfig,
): Promise<BackendRuntime<HostGwFacts>> {
  const { paths } = context.hostNetwork.underlay;
  return Promise.resolve(new PathsRuntime(context, "host-gw", { paths }));
}

/** Opens what `ipip` needs to know: with `DirectRouting`, which peers are on-link. */
export function openIpip(
  context: RuntimeContext,
  { directRouting }: IpipConfig,
): Promise<BackendRuntime<IpipFacts>> {
  const type = directRouting ? "ipip" : undefined;
  const { paths } = context.hostNetwork.underlay;
  return Promise.resolve(new PathsRuntime(context, type, { paths }));
}

/** Opens what `vxlan` needs to know: its MACs and, with `DirectRouting`, which peers are on-link. */
export async function openVxlan(
  context: RuntimeContext,
  config: VxlanConfig,
): Promise<BackendRuntime<VxlanFacts>> {
  const txChecksum = decideChecksumOffload(config.checksumOffload);
  const families = ([4, 6] as const).filter((family) => context.network[`ipv${family}`]);
  const left = await findMacs(context, config, families);
  const macs = { ...Object.fromEntries(families.map((family) => [family, randomMac()])), ...left };
  const facts = {
    paths: context.hostNetwork.underlay.paths,
    macs,
    ...(txChecksum === undefined ? {} : { txChecksum }),
  };
  const made = families.filter((family) => !left[family]);
  return new VxlanRuntime(context, config.directRouting, facts, made);
}

/**
 * What `ChecksumOffload` comes to on this kernel. Before Linux 5.7 the masquerading of a tunnel's
 * own packets spoilt their checksums while computing them was left to the device (kubernetes
 * #88986, fixed by "netfilter: nat: never update the UDP checksum when it's 0"); since then, off
 * only costs throughput.
 */
export function decideChecksumOffload(
  wish: VxlanConfig["checksumOffload"],
  release = readSysctl("kernel.osrelease") ?? "",
): boolean | undefined {
  if (wish !== "auto") return wish === "on";
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  if (major === undefined || minor === undefined) return undefined;
  const isSpoilt = Number(major) < 5 || (Number(major) === 5 && Number(minor) < 7);
  return isSpoilt ? false : undefined;
}

/** The MAC of each family's device that the last run has left. */
async function findMacs(
  { hostNetwork, signal }: RuntimeContext,
  { vni }: VxlanConfig,
  families: readonly Family[],
): Promise<Macs> {
  const links = await hostNetwork.netlink.listLinks({ signal });
  const macs: { [family in Family]?: MacAddress } = {};
  for (const family of families) {
    const name = vxlanLinkName(family, vni);
    const link = links.find((each) => each.name === name && each.kind === "vxlan");
    const isOthers = link?.alias?.startsWith(LINK_ALIAS_PREFIX) &&
      link.alias !== hostNetwork.linkAlias;
    if (link?.mac && !isOthers) macs[family] = link.mac;
  }
  return macs;
}

/** A random unicast address, marked as locally administered. */
function randomMac(): MacAddress {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return MacAddress.fromBytes(bytes);
}

/**
 * The first peer of a key before the own one whose device has the own MAC. Not a former lease of
 * this very host, as a restored backup of the store may hold.
 */
function* findTwin(
  family: Family,
  mac: MacAddress,
  own: Lease,
  peers: Iterable<Lease>,
): Generator<void, Lease | undefined> {
  let count = 0;
  for (const peer of peers) {
    if (++count % STEP_PEERS === 0) yield;
    const { key, attributes: { backendType, backendData, backendV6Data } } = peer;
    if (key >= own.key || backendType !== "vxlan") continue;
    if (isOwnedBy(peer.attributes, own.attributes)) continue;
    if (readVtepMac(family === 4 ? backendData : backendV6Data)?.equals(mac)) return peer;
  }
  return undefined;
}

/** Those of `peers` that have changed and are there. */
function* peersAmong(peers: Peers, changed: ChangedLeases): Generator<Lease, void> {
  for (const key of changed === "all" ? [] : changed) {
    const peer = peers.get(key);
    if (peer) yield peer;
  }
  if (changed === "all") yield* peers;
}

/** Follows how the kernel would send to peers, where the plan depends on it. */
class PathsRuntime<Facts extends HostGwFacts> implements BackendRuntime<Facts> {
  readonly facts: Cell<Facts>;
  protected readonly context: RuntimeContext;
  readonly #type: string | undefined;

  /** @param type Of the peers whose paths are followed; `undefined`: of none. */
  constructor(context: RuntimeContext, type: string | undefined, facts: Facts) {
    this.context = context;
    this.#type = type;
    this.facts = new Cell(facts);
  }

  async gather(
    own: Lease,
    peers: Peers,
    changed: ChangedLeases,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<ChangedLeases> {
    const among = { [Symbol.iterator]: () => peersAmong(peers, changed) };
    this.facts.set(await inSlices(this.settle(own, among), { signal }));
    if (this.#type === undefined) return new Set();
    const { underlay } = this.context.hostNetwork;
    const addresses = await inSlices(this.#addresses(this.#type, peers, changed), { signal });
    if (changed === "all") return await underlay.follow(addresses, { signal, all: true });
    return await underlay.follow(addresses, { signal });
  }

  /** What of the facts follows from the leases of peers that have changed. */
  // deno-lint-ignore require-yield
  protected *settle(_own: Lease, _peers: Iterable<Lease>): Generator<void, Facts> {
    return this.facts.value;
  }

  status(peers: Iterable<Lease>): BackendStatus {
    return this.#type === undefined ? {} : { paths: () => this.#describePaths(peers) };
  }

  /** By key the public addresses of peers with the backend `type`, in the network's families. */
  *#addresses(
    type: string,
    peers: Peers,
    changed: ChangedLeases,
  ): Generator<void, Map<string, readonly Address[]>> {
    const { network } = this.context;
    const addresses = new Map<string, readonly Address[]>();
    let count = 0;
    // Of peers that are gone there is nothing to be known.
    if (changed !== "all") { for (const key of changed) addresses.set(key, []); }
    for (const { key, attributes } of peersAmong(peers, changed)) {
      if (++count % STEP_PEERS === 0) yield;
      const { backendType, publicIp, publicIpv6 } = attributes;
      if (backendType !== type) continue;
      const both = [network.ipv4 && publicIp, network.ipv6 && publicIpv6];
      addresses.set(key, both.filter((address) => address !== undefined));
    }
    return addresses;
  }

  /** Which peers are reached without encapsulation, and why others are not. */
  #describePaths(peers: Iterable<Lease>): PathsStatus {
    const described: Record<string, string> = {};
    let direct = 0;
    let others = 0;
    for (const { key, attributes: { publicIp, publicIpv6 } } of peers) {
      for (const address of [publicIp, publicIpv6]) {
        const path = address && this.facts.value.paths.get(address.toString());
        if (!path) continue;
        if (path.direct) direct++;
        else others++;
        if (direct + others > LISTED_PEERS) continue;
        described[`${key} ${address}`] = path.direct ? `direct on ${path.link}` : path.reason;
      }
    }
    return { direct, others, peers: described };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** Keeps the MACs of this host's VXLAN devices, besides. */
class VxlanRuntime extends PathsRuntime<VxlanFacts> {
  #madeMacs: readonly Family[];

  /** @param madeMacs Families whose MAC is a new one, for want of a device. */
  constructor(
    context: RuntimeContext,
    directRouting: boolean,
    facts: VxlanFacts,
    madeMacs: readonly Family[],
  ) {
    super(context, directRouting ? "vxlan" : undefined, facts);
    this.#madeMacs = madeMacs;
  }

  /** Takes published MACs for new devices: peers know them, so they must not change without need. */
  inherit({ backendType, backendData, backendV6Data }: LeaseAttributes): void {
    if (backendType !== "vxlan") return;
    for (const family of this.#madeMacs) {
      const mac = readVtepMac(family === 4 ? backendData : backendV6Data);
      const { value: facts } = this.facts;
      if (mac) this.facts.set({ ...facts, macs: { ...facts.macs, [family]: mac } });
    }
    this.#madeMacs = [];
  }

  /**
   * The own MACs, with a new one for each that a peer publishes too: of two hosts with one MAC (a
   * cloned machine, say) the one whose lease comes later in order gives way.
   */
  protected override *settle(own: Lease, peers: Iterable<Lease>): Generator<void, VxlanFacts> {
    const { value: facts } = this.facts;
    let { macs } = facts;
    for (const family of [4, 6] as const) {
      const mac = macs[family];
      const twin = mac && (yield* findTwin(family, mac, own, peers));
      if (!twin) continue;
      const fresh = randomMac();
      macs = { ...macs, [family]: fresh };
      this.context.log.warn(
        `The MAC ${mac} of this host's VXLAN device is also that of ${twin.key}; ` +
          `taking ${fresh} instead`,
      );
    }
    return macs === facts.macs ? facts : { ...facts, macs };
  }
}
