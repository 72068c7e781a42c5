import type { Lease } from "../../lease/lease.ts";
import type { Address, Prefix } from "../../net/mod.ts";
import { asStartupError } from "./errors.ts";
import { type AliVpcInstance, type AliVpcOptions, identifyAliVpc } from "./identify.ts";
import { Patience } from "./patience.ts";
import type { RouteTable } from "./route_table.ts";
import type { SourceDestCheckTable } from "./source_dest_check.ts";
import type { ChosenTables } from "./table_choice.ts";

/** What is known about the instance and its tables. */
export interface AliVpcHost extends AliVpcInstance {
  /** Primary and secondary blocks of the VPC. */
  readonly vpcCidrs: readonly Prefix[];
  /** The tables that are to hold this host's entry; they may grow as peers come. */
  readonly routeTableIds: readonly string[];
}

/** `ali-vpc`, checked and ready: the Tables, and the facts for the backend's plan. */
export interface AliVpcCloud extends AsyncDisposable {
  readonly facts: AliVpcHost;
  readonly routes: RouteTable;
  readonly sourceDestCheck: SourceDestCheckTable;
  readonly resyncSeconds: number;
  /** Where the credentials came from, for messages. */
  readonly credentialsSource: string;
  /** Milliseconds that calls have waited for this process's own rate limit. */
  readonly limiterWaitedMs: number;
  /**
   * Takes the leases into account: which subnets are ours, and which route tables the peers'
   * vSwitches use. To be called before each round of the route Table; it costs no call as long as
   * the VPC has one table, and few otherwise. Answers the facts for the plan, the same object while
   * they stay the same, and never fails for trouble of the service: the tables known before stay.
   */
  follow(
    own: Lease,
    peers: readonly Lease[],
    options: { signal: AbortSignal },
  ): Promise<AliVpcHost>;
  /** Another host holds the own lease now: its route is not written until `follow` is called. */
  disown(): void;
}

/**
 * Everything that must hold before a lease is written: the instance is known and in a VPC, the
 * credentials work and may do what is needed, the right route tables are found and have room, and
 * the network is clear of the VPC's ranges.
 *
 * @throws {OperatorError} What only a person can mend.
 * @throws {Error} What time may mend (silent metadata, throttling, 5xx, no connection): call again.
 */
export async function openAliVpc(options: AliVpcOptions): Promise<AliVpcCloud> {
  try {
    return await open(options);
  } catch (error) {
    options.signal.throwIfAborted();
    throw asStartupError(error);
  }
}

async function open(options: AliVpcOptions): Promise<AliVpcCloud> {
  const { config, log, signal, clock = {} } = options;
  await using stack = new AsyncDisposableStack();
  const identity = stack.use(await identifyAliVpc(options));
  const { instanceId, networkInterfaceId } = identity.instance;
  const access = await identity.connect({ signal });
  if (access.full !== undefined) throw new Error(`Cannot use ${access.full}`);
  const sourceDestCheck = identity.makeSourceDestCheck(() => [{ networkInterfaceId }]);
  // Tells early what will be in the way.
  if (config.sourceDestCheck === "disable") {
    await new Patience({ log, signal, clock }).call(() => sourceDestCheck.list({ signal }));
  }
  const routes = access.makeRouteTable({ instanceId });

  let facts: AliVpcHost = {
    ...identity.instance,
    vpcCidrs: access.vpcCidrs,
    routeTableIds: access.routeTableIds,
  };
  const resources = stack.move();
  return {
    get facts() {
      return facts;
    },
    routes,
    sourceDestCheck,
    resyncSeconds: config.resyncSeconds,
    get credentialsSource() {
      return identity.credentialsSource ?? "";
    },
    get limiterWaitedMs() {
      return identity.limiterWaitedMs;
    },
    async follow(own, peers, { signal }) {
      const inVpc = (address: Address | undefined): address is Address =>
        address !== undefined && access.vpcCidrs.some((cidr) => cidr.contains(address));
      const addresses = peers.map((peer) => peer.attributes.publicIp).filter(inVpc);
      const chosen: ChosenTables = await access.choice.forPeers(addresses, { signal });
      routes.setScope({
        ...chosen,
        claims: own.subnet.ipv4 === undefined ? [] : [{ destination: own.subnet.ipv4, instanceId }],
      });
      const before = facts.routeTableIds;
      if (before.join() === chosen.routeTableIds.join()) return facts;
      log.info("The route tables that peers use have changed", {
        tables: chosen.routeTableIds.join(","),
      });
      return facts = { ...facts, routeTableIds: chosen.routeTableIds };
    },
    disown: () => routes.disown(),
    async [Symbol.asyncDispose]() {
      await resources.disposeAsync();
    },
  };
}
