/**
 * One host of `ali-vpc`'s kernel side, as a process inside its namespace: plans what the request in
 * its argument says with the backend's own `plan()`, applies it with the daemon's Tables in rounds
 * until nothing is left to do, and ends.
 *
 * @module
 */
import { planAll } from "../support/plan_all.ts";
import { KernelTables, linkAlias } from "../../src/kernel/kernel_tables.ts";
import {
  aliVpc,
  type AliVpcFacts,
  type Host as BackendHost,
  vxlan,
} from "../../src/backends/mod.ts";
import { parseNetworkConfig } from "../../src/config/network_config.ts";
import { openNetlink } from "../../src/kernel/netlink/rtnetlink.ts";
import type { Lease } from "../../src/lease/lease.ts";
import { createLogger } from "../../src/log.ts";
import { Address, MacAddress, Prefix } from "../../src/net/mod.ts";
import { Reconciler } from "../../src/reconcile/reconciler.ts";
import { Desired } from "../../src/state/desired.ts";
import type { DesiredState } from "../../src/state/mod.ts";

/** What a host is to come to. */
export interface OverflowRequest {
  /** Its number among `hosts`: host `n` is 10.0.n.2 and has 10.24.n.0/24. */
  readonly host: number;
  readonly hosts: readonly number[];
  readonly subnetFile: string;
  readonly backend: "ali-vpc" | "vxlan";
  /** Hosts without a route entry. */
  readonly overflow: readonly number[];
  readonly vtep: boolean;
}

/** The address that other hosts reach host `n` by. */
export function hostAddress(n: number): string {
  return `10.0.${n}.2`;
}

export function subnetOf(n: number): string {
  return `10.24.${n}.0/24`;
}

export const NETWORK = "10.24.0.0/16";

if (import.meta.main) await apply(JSON.parse(Deno.args[0]!) as OverflowRequest);

async function apply(request: OverflowRequest): Promise<void> {
  const { signal } = new AbortController();
  const log = createLogger({ format: "human", verbosity: 0 });
  await using netlink = openNetlink();
  const tables = new KernelTables({
    netlink,
    alias: linkAlias(request.subnetFile),
    networks: [Prefix.parse(NETWORK)],
    externalLink: "eth0",
    log,
  });
  const desired = Desired.of(plan(request));
  const addresses = new Set(request.hosts.map(hostAddress));
  const reconciler = new Reconciler({
    name: "kernel",
    stages: tables.stages(() => desired, (address) => addresses.has(String(address))),
    resyncMs: Infinity,
    log,
  });
  const first = await reconciler.round({ signal });
  const second = await reconciler.round({ signal });
  if (!first.inSync || !second.inSync || second.changed > 0) {
    throw new Error(`Cannot reach the desired state: ${JSON.stringify([first, second])}`);
  }
}

function plan({ host: n, hosts, backend, overflow, vtep }: OverflowRequest): DesiredState {
  const { config: network } = parseNetworkConfig(
    JSON.stringify({ Network: NETWORK, Backend: { Type: backend, Overflow: "vxlan" } }),
  );
  const address = Address.parse(hostAddress(n));
  const host: BackendHost = { link: "eth0", mtuBytes: 1500, address, publicIp: address };
  const leases = hosts.map((each) => leaseOf(each, backend));
  const inputs = {
    network,
    host,
    own: leases.find(({ key }) => key === leaseKey(n))!,
    peers: leases.filter(({ key }) => key !== leaseKey(n)),
  };
  if (backend === "vxlan") {
    return planAll(vxlan, {
      ...inputs,
      config: vxlan.parseConfig({}).config,
      facts: { macs: { 4: vxlanMac(n) }, paths: new Map() },
    });
  }
  return planAll(aliVpc, {
    ...inputs,
    config: aliVpc.parseConfig(network.backend.options).config,
    facts: {
      ...claimOf(n),
      routeTableIds: [],
      overflow: { keys: new Set(overflow.map(leaseKey)), vtep },
    },
  });
}

function leaseKey(n: number): string {
  return subnetOf(n).replace("/", "-");
}

function claimOf(n: number): Omit<AliVpcFacts, "routeTableIds"> {
  return {
    instanceId: `i-${n}`,
    networkInterfaceId: `eni-${n}`,
    vpcId: "vpc-1",
    vSwitchId: `vsw-${n}`,
  };
}

function vxlanMac(n: number): MacAddress {
  return MacAddress.fromBytes(Uint8Array.of(2, 0, 0, 0, 0, n));
}

/** As the host publishes it. */
function leaseOf(n: number, backend: OverflowRequest["backend"]): Lease {
  const publicIp = Address.parse(hostAddress(n));
  const attributes = backend === "vxlan"
    ? {
      publicIp,
      backendType: "vxlan",
      backendData: { VNI: 1, VtepMAC: String(vxlanMac(n)) },
    }
    : aliVpc.announce(
      aliVpc.parseConfig({}).config,
      { link: "eth0", mtuBytes: 1500, publicIp },
      { ...claimOf(n), routeTableIds: [] },
    );
  return { key: leaseKey(n), subnet: { ipv4: Prefix.parse(subnetOf(n)) }, attributes };
}
