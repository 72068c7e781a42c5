/**
 * Watches what others on this host do to the network's packets: rules of other firewalls, policy
 * routing, forwarding switched off. Each problem is logged once when it appears and once when it is
 * over; nothing is repaired, since it is not ours.
 *
 * @module
 */
import { Libc } from "../../ffi/libc/open.ts";
import type { Host } from "../backends/mod.ts";
import type { Firewall, PodPaths } from "../firewall/mod.ts";
import { adviseOnHostGw, findCloudVendor } from "../kernel/cloud_vendor.ts";
import { type Diversion, findDiversions, type PathCheck } from "../kernel/diversion.ts";
import { isHostLength } from "../kernel/own_address.ts";
import { hasLegacyTables, isForwarding, isForwardingFrom } from "../kernel/sysctl.ts";
import type { Lease } from "../lease/lease.ts";
import type { Peers } from "../lease/peers.ts";
import type { Logger } from "../log.ts";
import { type Address, type Family, Prefix } from "../net/mod.ts";
import type { Desired } from "../state/desired.ts";
import { present } from "../util/present.ts";
import { delay } from "../util/time.ts";
import type { HostNetwork } from "./host_network.ts";
import { ownFamilies } from "./local_plans.ts";
import { enabledFamilies, type NetworkConfig } from "../config/network_config.ts";
import type { Finding, Problem } from "../status/model.ts";
import { Outage, ProblemLog, sentenceOf } from "../status/problems.ts";
import type { Condition } from "../status/readiness.ts";

/** Period of checks for readiness, before the first real check. */
const READY_MS = 500;
/** Period of checks, each of which costs some system calls. */
const LOOK_MS = 5_000;
/** Period of checks of foreign rules, for which programs are run. */
const RULES_MS = 20_000;
/** Peers per family whose routes are looked up. */
const SAMPLED_PEERS = 4;

export interface SurroundingsOptions {
  readonly configured: {
    readonly network: NetworkConfig;
    readonly backend: { readonly exposesPods: boolean };
  };
  readonly hostNetwork: HostNetwork;
  /** What is planned, and from what. */
  readonly planner: {
    readonly own: Lease;
    readonly latest: Desired | undefined;
    readonly peers: Peers;
  };
  readonly firewall: Firewall;
  /** Unmet while pods' packets are blocked. */
  readonly condition: Condition;
  /** Whether our own objects are in place; checks before that would mislead. */
  readonly isReady: () => boolean;
  readonly log: Logger;
}

/** See the module. */
export class Surroundings {
  readonly #options: SurroundingsOptions;
  readonly #problems: ProblemLog;
  readonly #looking: Outage;
  /** Families that were forwarded once: a container runtime may enable that late. */
  readonly #forwarded = new Set<Family>();
  #rulesAt = -Infinity;
  #refusals: readonly Finding[] = [];

  constructor(options: SurroundingsOptions) {
    this.#options = options;
    this.#problems = new ProblemLog(options.log, {
      over: (problem) => [`No longer true: ${sentenceOf(problem)}`],
    });
    this.#looking = new Outage(options.log, {
      code: "look-failed",
      object: "surroundings",
      failed: "Cannot look at what surrounds the network",
      recovered: "Could look at what surrounds the network",
    });
  }

  /** Present problems; rules are among the firewall's. */
  get problems(): readonly Problem[] {
    return this.#problems.problems;
  }

  /** Checks until `signal` aborts, once the daemon's own objects are in place. */
  async run({ signal }: { signal: AbortSignal }): Promise<never> {
    await this.#attempt(() => this.#lookFirst(signal), signal);
    while (!this.#options.isReady()) await delay(READY_MS, { signal });
    for (;; await delay(LOOK_MS, { signal })) {
      await this.#attempt(() => this.#look(signal), signal);
    }
  }

  /** Failed checks are logged and do not end the loop. */
  async #attempt(look: () => Promise<void>, signal: AbortSignal): Promise<void> {
    try {
      await look();
      this.#looking.working();
    } catch (error) {
      signal.throwIfAborted();
      this.#looking.failing(error);
    }
  }

  async #lookFirst(signal: AbortSignal): Promise<void> {
    for (const { network: { family } } of enabledFamilies(this.#options.configured)) {
      if (isForwarding(family)) this.#forwarded.add(family);
    }
    if (this.#options.configured.backend.exposesPods) await this.#warnOfCloud(signal);
  }

  /** A virtual link sees the host's firmware, but is not the cloud's. */
  async #warnOfCloud(signal: AbortSignal): Promise<void> {
    const { hostNetwork } = this.#options;
    const links = await hostNetwork.netlink.listLinks({ signal });
    const link = links.find(({ name }) => name === hostNetwork.host.value.link);
    const cloud = link?.kind === "veth" ? undefined : findCloudVendor();
    if (cloud === undefined) return;
    const message = adviseOnHostGw(cloud);
    this.#problems.set([{ code: "cloud-network", object: cloud, message }], "cloud");
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { configured, firewall, condition } = this.#options;
    const paths = await this.#paths(signal);
    const cuts: Finding[] = [];
    for (const { family } of enabledFamilies(configured).map(({ network }) => network)) {
      const links = paths.filter((path) => path.family === family)
        .flatMap(({ inside, outside }) => [inside, ...outside]);
      cuts.push(...this.#findForwardingOff(family, links));
    }
    this.#problems.set([...cuts], "forwarding");

    const { netlink } = this.#options.hostNetwork;
    // Without forwarding, no packet of a pod has a route.
    const checks = this.#checks(paths).filter(({ inputLink }) => !inputLink || cuts.length === 0);
    const diversions = (await findDiversions(netlink, checks, { signal })).map((each) =>
      toFinding(each, each.check.inputLink ? "pods-diverted" : "host-diverted")
    );
    const tunnels = this.#tunnelChecks(paths);
    const refused = (await findDiversions(netlink, tunnels, { signal })).map((each) =>
      toFinding(each, "tunnel-diverted")
    );
    this.#problems.set([...diversions, ...refused], "routes");
    cuts.push(...diversions.filter(({ code }) => code === "pods-diverted"));
    // A single unreachable host may have published a wrong address.
    if (refused.length === tunnels.length) cuts.push(...refused);

    if (performance.now() - this.#rulesAt >= RULES_MS || this.#refusals.length > 0) {
      this.#refusals = await firewall.survey(paths, { signal, hasLegacyTables });
      this.#rulesAt = performance.now();
    }
    cuts.push(...this.#refusals);
    const [cut, ...more] = cuts;
    if (cut === undefined) condition.met();
    else condition.unmet(cut, ...more);
  }

  #findForwardingOff(family: Family, links: readonly string[]): Finding[] {
    using _libc = Libc.open(); // once for all that is read
    const name = family === 4 ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding";
    if (isForwarding(family) === false) {
      return !this.#forwarded.has(family) ? [] : [{
        code: "forwarding-off",
        object: name,
        message: `This host forwards no IPv${family} packets any more, so pods reach no other ` +
          `host: something has set ${name} to 0`,
        remedy: `set ${name}=1, and see the files in /etc/sysctl.d`,
      }];
    }
    this.#forwarded.add(family);
    if (family === 6) return [];
    const off = [...new Set(links)].filter((link) => isForwardingFrom(link) === false);
    return off.map((link) => ({
      code: "forwarding-off",
      object: link,
      message: `This host forwards no IPv4 packets that come in by ${link}, so pods do not reach ` +
        `each other`,
      remedy: `set net/ipv4/conf/${link}/forwarding=1`,
    }));
  }

  /** Checks the present path of pods' packets. */
  async #paths(signal: AbortSignal): Promise<PodPaths[]> {
    const { configured, hostNetwork, planner } = this.#options;
    const { own, latest, peers } = planner;
    const addresses = await hostNetwork.netlink.listAddresses({ signal });
    const links = await hostNetwork.netlink.listLinks({ signal });
    const { value: host } = hostNetwork.host;
    return ownFamilies(configured, own).map(({ network, subnet }): PodPaths => {
      const { family } = network;
      const bridge = addresses.find((each) =>
        !isHostLength(each) && subnet.contains(each.address.address)
      );
      const inside = links.find(({ index }) => index === bridge?.linkIndex)?.name ?? "cni0";
      const outside = new Set<string>();
      for (const { destination, link } of latest?.routes ?? []) {
        if (destination.family === family && network.contains(destination) && link) {
          outside.add(link);
        }
      }
      const peer = peers[Symbol.iterator]().map((each) => publicIpOf(each, family)).find(Boolean);
      return present({
        family,
        network,
        subnet,
        inside,
        outside: outside.size > 0 ? [...outside] : [host.link],
        tunnel: this.#tunnel(family, peer),
      });
    });
  }

  #tunnel(family: Family, peer: Address | undefined): PodPaths["tunnel"] {
    const { hostNetwork: { host: { value: host } }, planner: { latest } } = this.#options;
    const local = ownAddress(host, family);
    if (!peer || !local) return undefined;
    const path = { link: host.link, local, peer };
    const [link] = (latest?.host.links ?? []).filter(({ vxlan, ipip }) =>
      (vxlan?.local ?? ipip?.local)?.family === family
    );
    if (link?.vxlan) return { ...path, protocol: "udp", port: link.vxlan.port };
    if (link?.ipip) return { ...path, protocol: "ipip" };
    const [socket] = latest?.host.udpSockets ?? [];
    return socket ? { ...path, protocol: "udp", port: socket.port } : undefined;
  }

  /** Checks the path of the tunnel's own packets to some peers. */
  #tunnelChecks(paths: readonly PodPaths[]): PathCheck[] {
    const { planner: { peers } } = this.#options;
    return paths.flatMap(({ family, tunnel }) =>
      sampleOf(peers).flatMap((peer): PathCheck[] => {
        const destination = tunnel && publicIpOf(peer, family);
        return !destination ? [] : [present({
          title: "Packets of the tunnel between hosts",
          destination,
          network: Prefix.host(destination),
          from: tunnel.local,
          udpPort: tunnel.port,
        })];
      })
    );
  }

  /** The lookups: packets of pods and of this host to some peers. */
  #checks(paths: readonly PodPaths[]): PathCheck[] {
    const { hostNetwork: { host: { value: host } }, planner: { latest, peers } } = this.#options;
    return paths.flatMap(({ family, network, subnet, inside }) => {
      const own = ownAddress(host, family);
      return sampleOf(peers).flatMap((peer) => {
        const prefix = peer.subnet[`ipv${family}`];
        const way = prefix &&
          latest && (latest.routes.get(prefix.toString()) ?? latest.routes.get(network.toString()));
        if (!prefix || !way?.link || way.type !== "unicast") return [];
        const { link, gateway } = way;
        const check = {
          network,
          destination: prefix.address.add(2n),
          expected: present({ link, gateway }),
        };
        const pods: PathCheck = {
          ...check,
          title: "Packets of pods",
          from: subnet.address.add(2n),
          inputLink: inside,
        };
        return own ? [pods, { ...check, title: "Packets of this host", from: own }] : [pods];
      });
    });
  }
}

function toFinding({ packets, message, remedy }: Diversion, code: Finding["code"]): Finding {
  return { code, object: packets, message, remedy };
}

function publicIpOf({ attributes }: Lease, family: Family): Address | undefined {
  return family === 4 ? attributes.publicIp : attributes.publicIpv6;
}

function ownAddress({ address, addressV6 }: Host, family: Family): Address | undefined {
  return family === 4 ? address : addressV6;
}

function sampleOf(peers: Peers): Lease[] {
  return [...peers[Symbol.iterator]().take(SAMPLED_PEERS)];
}
