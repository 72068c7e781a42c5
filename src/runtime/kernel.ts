import {
  hostGw,
  type IpipConfig,
  type PeerPaths,
  readVtepMac,
  STEP_PEERS,
  vxlan,
  type VxlanConfig,
  vxlanLinkName,
} from "../backends/mod.ts";
import { LINK_ALIAS_PREFIX } from "../kernel/link_table.ts";
import { readSysctl } from "../kernel/sysctl.ts";
import type { Lease, LeaseAttributes } from "../lease/lease.ts";
import { type Address, type Family, MacAddress } from "../net/mod.ts";
import { isOwnedBy } from "../store/etcd/acquire.ts";
import { inSlices } from "../util/slices.ts";
import type { BackendRuntime, BackendRuntimeOptions, UnderlayRuntime } from "./runtime.ts";

/** MACs of the families' VXLAN devices. */
type Macs = { readonly [family in Family]?: MacAddress };

/** What the plans of `host-gw`, `vxlan` and `ipip` are told; each looks at its own part. */
interface Facts {
  readonly paths: PeerPaths;
  readonly macs: Macs;
  readonly txChecksum?: boolean;
}

/** At most this many peers are listed on the status page. */
const LISTED_PEERS = 1_000;

/** Opens what `host-gw`, `vxlan` and `ipip` need to know of the host and the underlay. */
export async function openUnderlayRuntime(
  context: BackendRuntimeOptions,
): Promise<BackendRuntime> {
  const { backend, backendConfig } = context.configured;
  if (backend !== vxlan) {
    const paths: PeerPaths = new Map();
    const looksUp = backend === hostGw || (backendConfig as IpipConfig).directRouting;
    return new KernelBackendRuntime(context, looksUp, { paths, macs: {} });
  }
  const config = backendConfig as VxlanConfig;
  const txChecksum = decideChecksumOffload(config.checksumOffload);
  const families = ([4, 6] as const).filter((family) => context.configured.network[`ipv${family}`]);
  const left = await findMacs(context, config, families);
  const macs = { ...Object.fromEntries(families.map((family) => [family, randomMac()])), ...left };
  const facts = {
    paths: new Map(),
    macs,
    ...(txChecksum === undefined ? {} : { txChecksum }),
  };
  const made = families.filter((family) => !left[family]);
  return new KernelBackendRuntime(context, config.directRouting, facts, made);
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
  { hostNetwork, signal }: BackendRuntimeOptions,
  { vni }: VxlanConfig,
  families: readonly Family[],
): Promise<Macs> {
  const links = await hostNetwork.listLinks({ signal });
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
  peers: readonly Lease[],
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

class KernelBackendRuntime implements BackendRuntime {
  readonly #context: BackendRuntimeOptions;
  /** Whether the plan depends on how the kernel sends to peers. */
  readonly #looksUp: boolean;
  #facts: Facts;
  #madeMacs: readonly Family[];
  #peers: readonly Lease[] | undefined;

  /** @param madeMacs Families whose MAC is a new one, for want of a device. */
  constructor(
    context: BackendRuntimeOptions,
    looksUp: boolean,
    facts: Facts,
    madeMacs: readonly Family[] = [],
  ) {
    this.#context = context;
    this.#looksUp = looksUp;
    this.#facts = facts;
    this.#madeMacs = madeMacs;
  }

  /** Takes published MACs for new devices: peers know them, so they must not change without need. */
  readonly inherit = ({ backendType, backendData, backendV6Data }: LeaseAttributes): void => {
    if (backendType !== "vxlan") return;
    for (const family of this.#madeMacs) {
      const mac = readVtepMac(family === 4 ? backendData : backendV6Data);
      if (mac) this.#facts = { ...this.#facts, macs: { ...this.#facts.macs, [family]: mac } };
    }
    this.#madeMacs = [];
  };

  announce: BackendRuntime["announce"] = (host) => {
    const { backend, backendConfig } = this.#context.configured;
    return backend.announce(backendConfig, host, this.#facts);
  };

  plan: BackendRuntime["plan"] = (host, own, peers) => {
    const { backend, backendConfig: config, network } = this.#context.configured;
    return backend.plan({ config, network, host, facts: this.#facts, own, peers });
  };

  readonly underlay: UnderlayRuntime = {
    follow: async (own, peers, { signal }) => {
      const { underlay } = this.#context.hostNetwork;
      if (peers === this.#peers && !underlay.isStale) return false;
      const before = this.#facts;
      const macs = await inSlices(this.#settleMacs(own, peers), { signal });
      if (macs !== before.macs) this.#facts = { ...this.#facts, macs };
      if (this.#looksUp) {
        const addresses = await inSlices(this.#underlayAddresses(peers), { signal });
        const paths = await underlay.update(addresses, { signal });
        if (paths !== before.paths) this.#facts = { ...this.#facts, paths };
      }
      this.#peers = peers;
      return this.#facts !== before;
    },
    status: (peers) => this.#looksUp ? { paths: () => this.#describePaths(peers) } : {},
  };

  /** The public addresses of peers with this backend, in the network's families. */
  *#underlayAddresses(peers: readonly Lease[]): Generator<void, Address[]> {
    const { network, backend } = this.#context.configured;
    const addresses: Address[] = [];
    let count = 0;
    for (const { attributes: { backendType, publicIp, publicIpv6 } } of peers) {
      if (++count % STEP_PEERS === 0) yield;
      if (backendType !== backend.type) continue;
      if (publicIp && network.ipv4) addresses.push(publicIp);
      if (publicIpv6 && network.ipv6) addresses.push(publicIpv6);
    }
    return addresses;
  }

  /**
   * The own MACs, with a new one for each that a peer publishes too: of two hosts with one MAC (a
   * cloned machine, say) the one whose lease comes later in order gives way.
   */
  *#settleMacs(own: Lease, peers: readonly Lease[]): Generator<void, Macs> {
    let { macs } = this.#facts;
    for (const family of [4, 6] as const) {
      const mac = macs[family];
      const twin = mac && (yield* findTwin(family, mac, own, peers));
      if (!twin) continue;
      const fresh = randomMac();
      macs = { ...macs, [family]: fresh };
      this.#context.log.warn(
        `The MAC ${mac} of this host's VXLAN device is also that of ${twin.key}; ` +
          `taking ${fresh} instead`,
      );
    }
    return macs;
  }

  /** Which peers are reached without encapsulation, and why others are not. */
  #describePaths(peers: readonly Lease[]): Record<string, unknown> {
    const described: Record<string, string> = {};
    let direct = 0;
    let others = 0;
    for (const { key, attributes: { publicIp, publicIpv6 } } of peers) {
      for (const address of [publicIp, publicIpv6]) {
        const path = address && this.#facts.paths.get(address.toString());
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
