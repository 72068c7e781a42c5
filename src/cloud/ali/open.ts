import type { AliVpcConfig } from "../../backends/ali_vpc.ts";
import { OperatorError } from "../../errors.ts";
import type { Lease } from "../../lease/lease.ts";
import type { Logger } from "../../log.ts";
import { Address, Prefix } from "../../net/mod.ts";
import { Backoff, delay } from "../../util/time.ts";
import { RateLimiter } from "../rate_limiter.ts";
import { EcsClient, type RouteEntry, VpcClient, type VpcInfo } from "./client.ts";
import { CredentialsChain } from "./credentials.ts";
import { chooseEndpoint, normalizeEndpoint, type Product, type Resolve } from "./endpoints.ts";
import { AliApiError, asStartupError } from "./errors.ts";
import { Metadata, METADATA_ENDPOINT } from "./metadata.ts";
import { routeEntryName } from "./route_entry.ts";
import { countEntries, RouteTable, tableFull } from "./route_table.ts";
import { openRpc } from "./rpc.ts";
import { SourceDestCheckTable } from "./source_dest_check.ts";
import { type ChosenTables, TableChoice } from "./table_choice.ts";

/** Options of {@linkcode openAliVpc}. */
export interface AliVpcOptions {
  readonly config: AliVpcConfig;
  /** The whole pod network. */
  readonly network: Prefix;
  /** Base URLs of other services than the usual ones; a scheme may be left out. */
  readonly endpoints?: {
    readonly vpc?: string;
    readonly ecs?: string;
    readonly sts?: string;
    readonly metadata?: string;
  };
  /** A variable of the environment. */
  readonly env: (name: string) => string | undefined;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Another clock than the system's, for tests. */
  readonly clock?: Clock;
  /** Looks a host name up. @default {node:dns lookup} */
  readonly resolve?: Resolve;
}

/** Time as this module uses it. */
export interface Clock {
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly delay: typeof delay;
}

/** What is known about the instance. */
export interface AliVpcInstance {
  readonly instanceId: string;
  readonly networkInterfaceId: string;
  readonly regionId: string;
  readonly vpcId: string;
  readonly vSwitchId: string;
  /** Primary and secondary blocks of the VPC. */
  readonly vpcCidrs: readonly Prefix[];
  /** The tables that are to hold this host's entry; they may grow as peers come. */
  readonly routeTableIds: readonly string[];
}

/** `ali-vpc`, checked and ready: the Tables, and the facts for the backend's plan. */
export interface AliVpcCloud extends AsyncDisposable {
  readonly facts: AliVpcInstance;
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
  ): Promise<AliVpcInstance>;
  /** Another host holds the own lease now: its route is not written until `follow` is called. */
  disown(): void;
}

/** Carrier-grade range that holds metadata, DNS and cloud services in every VPC. */
const RESERVED = Prefix.parse("100.64.0.0/10");
/** Entries per table where nobody raised the quota. The service tells no other number. */
const DEFAULT_QUOTA = 200;
/** The source/destination check is looked at every so many resyncs: 5 min by default. */
const CHECK_FRESH_RESYNCS = 5;

const REGION = /^[a-z]+(-[a-z0-9]+)+$/;
const ID = /^[a-z]+-[a-z0-9-]{1,120}$/;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

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
  const { config, network, log, signal, env, clock = {} } = options;
  if (network.family !== 4) {
    throw new OperatorError("Cannot use ali-vpc with an IPv6 network: it carries IPv4 only");
  }
  if (network.overlaps(RESERVED)) {
    throw new OperatorError(
      `Cannot use network ${network}: it overlaps ${RESERVED}, where Alibaba Cloud's own services ` +
        "are; choose another one",
    );
  }
  await using stack = new AsyncDisposableStack();
  const metadata = new Metadata({
    endpoint: normalizeEndpoint(options.endpoints?.metadata ?? METADATA_ENDPOINT, "http"),
    allowV1: env("ALIBABA_CLOUD_IMDSV1_DISABLED")?.trim().toLowerCase() !== "true",
    ...clock,
  });
  const instance = await readInstance(metadata, config, { signal });
  const { regionId, vpcId, instanceId, networkInterfaceId } = instance;
  const endpoint = (product: Product) => {
    const given = options.endpoints?.[product];
    return given === undefined
      ? chooseEndpoint(product, regionId, options.resolve)
      : Promise.resolve(normalizeEndpoint(given));
  };
  const credentials = stack.use(
    new CredentialsChain({
      config,
      env,
      metadata,
      stsEndpoint: () => stsEndpoint(options, regionId),
      ...clock,
    }),
  );
  await credentials.get({ signal });
  // Enough for the checks at start without a wait; far below any limit of the account afterwards.
  const limiter = new RateLimiter({ burst: 30, perSecond: 1, ...clock });
  const vpc = new VpcClient(
    stack.use(
      await openRpc({
        service: "vpc",
        endpoint: await endpoint("vpc"),
        apiVersion: "2016-04-28",
        credentials,
        limiter,
      }),
    ),
    regionId,
  );
  const ecs = new EcsClient(
    stack.use(
      await openRpc({
        service: "ecs",
        endpoint: await endpoint("ecs"),
        apiVersion: "2014-05-26",
        credentials,
        limiter,
      }),
    ),
    regionId,
  );

  const patience = new Patience({ ...options, clock });
  const vpcInfo = await patience.call(() => vpc.describeVpcAttribute(vpcId, { signal }));
  refuseOverlap(network, vpcInfo);
  const choice = new TableChoice({
    vpc,
    vpcId,
    vSwitchId: instance.vSwitchId,
    configured: config.routeTableIds,
    log,
    ...clock,
  });
  const tables = await patience.call(() => choice.resolveOwn({ signal }));
  for (const { id } of tables) {
    await patience.call(() => checkRouteTable(vpc, id, { network, instanceId, log, signal }));
  }
  const sourceDestCheck = new SourceDestCheckTable({
    ecs,
    networkInterfaceId,
    log,
    freshMs: config.resyncSeconds * CHECK_FRESH_RESYNCS * 1_000,
    ...clock,
  });
  // Tells early what will be in the way.
  if (config.sourceDestCheck === "disable") {
    await patience.call(() => sourceDestCheck.list({ signal }));
  }
  const routes = new RouteTable({ vpc, network, instanceId, log, ...clock });

  let facts: AliVpcInstance = {
    ...instance,
    vpcCidrs: vpcInfo.cidrs,
    routeTableIds: tables.map((table) => table.id),
  };
  log.info("Ready to use Alibaba Cloud", {
    region: regionId,
    vpc: vpcId,
    instance: instanceId,
    tables: facts.routeTableIds.join(","),
    credentials: credentials.source,
  });
  const resources = stack.move();
  return {
    get facts() {
      return facts;
    },
    routes,
    sourceDestCheck,
    resyncSeconds: config.resyncSeconds,
    get credentialsSource() {
      return credentials.source ?? "";
    },
    get limiterWaitedMs() {
      return limiter.waitedMs;
    },
    async follow(own, peers, { signal }) {
      const inVpc = (address: Address | undefined): address is Address =>
        address !== undefined && vpcInfo.cidrs.some((cidr) => cidr.contains(address));
      const addresses = peers.map((peer) => peer.attributes.publicIp).filter(inVpc);
      const chosen: ChosenTables = await choice.forPeers(addresses, { signal });
      routes.setScope({
        ...chosen,
        destinations: own.subnet.ipv4 === undefined ? [] : [own.subnet.ipv4],
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

interface PatienceOptions {
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly clock: Partial<Clock>;
}

/** How long one step of the start waits, and how long before it is repeated. */
const PATIENCE = {
  /** For the account's rate limit to let it through. */
  throttled: { budgetMs: 10 * 60_000, initialMs: 8_000, maxMs: 60_000 },
  /** For the service to recover; longer outages are the caller's to wait out. */
  other: { budgetMs: 30_000, initialMs: 1_000, maxMs: 8_000 },
} as const;

/**
 * Repeats a step of the start that time can mend. To begin all over instead would cost every host
 * of a large cluster a dozen calls more each time, and never end where one call in a few fails.
 */
class Patience {
  readonly #options: PatienceOptions;
  #saidThrottled = false;

  constructor(options: PatienceOptions) {
    this.#options = options;
  }

  async call<Result>(step: () => Promise<Result>): Promise<Result> {
    const { signal, clock } = this.#options;
    const { now = () => performance.now(), delay: wait = delay } = clock;
    const startedAt = now();
    const backoffs = {
      throttled: new Backoff(PATIENCE.throttled),
      other: new Backoff(PATIENCE.other),
    };
    for (;;) {
      try {
        return await step();
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof AliApiError) || error.reaction.do !== "retry") throw error;
        const kind = error.reaction.cause === "throttled" ? "throttled" : "other";
        if (now() - startedAt > PATIENCE[kind].budgetMs) throw error;
        this.#say(kind, error);
        await wait(backoffs[kind].next(), { signal });
      }
    }
  }

  /** One line for the long wait, whichever calls it holds up; the caller tells of the others. */
  #say(kind: keyof typeof PATIENCE, error: AliApiError): void {
    const { log } = this.#options;
    if (kind === "other") return log.debug(`${error.message}; trying again`);
    if (!this.#saidThrottled) {
      log.info("Waiting for Alibaba Cloud's rate limit", { reason: error.code });
    }
    this.#saidThrottled = true;
  }
}

/** The security token service's URL; RRSA's own variables choose region and network. */
async function stsEndpoint(options: AliVpcOptions, regionId: string): Promise<string> {
  const given = options.endpoints?.sts;
  if (given !== undefined) return normalizeEndpoint(given);
  const region = options.env("ALIBABA_CLOUD_STS_REGION")?.trim() || regionId;
  if (!REGION.test(region)) {
    throw new OperatorError("Cannot use ALIBABA_CLOUD_STS_REGION: it is no region id");
  }
  return await chooseEndpoint("sts", region, options.resolve);
}

/** Who this instance is, as the metadata service and, where given, the config say alike. */
async function readInstance(
  metadata: Metadata,
  config: AliVpcConfig,
  options: { signal: AbortSignal },
): Promise<Omit<AliVpcInstance, "vpcCidrs" | "routeTableIds">> {
  const regionId = await metadata.getMatching("region-id", REGION, options);
  const vpcId = await metadata.get("vpc-id", options);
  if (vpcId === undefined || vpcId === "") {
    throw new OperatorError(
      "Cannot use ali-vpc: this instance is not in a VPC (the metadata service has no vpc-id); " +
        "run it on an ECS instance of a VPC",
    );
  }
  if (!ID.test(vpcId)) throw new Error("Cannot use metadata vpc-id: it is no id");
  if (config.regionId !== undefined && config.regionId !== regionId) {
    throw new OperatorError(
      `Cannot use RegionID ${config.regionId}: this instance is in region ${regionId}`,
    );
  }
  if (config.vpcId !== undefined && config.vpcId !== vpcId) {
    throw new OperatorError(`Cannot use VpcID ${config.vpcId}: this instance is in ${vpcId}`);
  }
  const instanceId = await metadata.getMatching("instance-id", ID, options);
  const mac = await metadata.getMatching("mac", MAC, options);
  const primary = `network/interfaces/macs/${mac.toLowerCase()}`;
  return {
    regionId,
    vpcId,
    instanceId,
    vSwitchId: await metadata.getMatching("vswitch-id", ID, options),
    networkInterfaceId: await metadata.getMatching(`${primary}/network-interface-id`, ID, options),
  };
}

/** A route inside the VPC's own ranges is refused by the service, or takes vSwitches' traffic. */
function refuseOverlap(network: Prefix, vpc: VpcInfo): void {
  const overlapping = vpc.cidrs.filter((cidr) => cidr.overlaps(network));
  if (overlapping.length === 0) return;
  throw new OperatorError(
    `Cannot use network ${network}: it overlaps ${overlapping.join(" and ")} of VPC ${vpc.id}; ` +
      "choose a network outside the VPC's CIDR blocks",
  );
}

/** Whether the table may be read and written, and has room for our entry. */
async function checkRouteTable(
  vpc: VpcClient,
  routeTableId: string,
  context: {
    readonly network: Prefix;
    readonly instanceId: string;
    readonly log: Logger;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { network, instanceId, log, signal } = context;
  const mine: readonly RouteEntry[] = await vpc.describeRouteEntryList(
    routeTableId,
    { type: "Custom", nextHopId: instanceId },
    { signal },
  );
  const held = mine.some((entry) =>
    network.contains(entry.destination) && entry.nextHops.some((hop) => hop.id === instanceId)
  );
  // An entry of an earlier run will most likely do; nothing is to be asked of the service.
  if (held) return;
  const used = await countEntries(vpc, routeTableId, { signal });
  if (used !== undefined && used >= DEFAULT_QUOTA * 0.8 && used < DEFAULT_QUOTA) {
    log.warn(
      `Route table ${routeTableId} is nearly full unless its quota was raised: each host of the ` +
        "network takes one entry (quota vpc_quota_route_entrys_num)",
      { used, limit: DEFAULT_QUOTA },
    );
  }
  try {
    // Asks for rights, parameters and quota, and writes nothing. Our subnet is not known yet; any
    // destination within the network does, and nobody routes a single address of it.
    await vpc.createRouteEntry({
      routeTableId,
      destination: new Prefix(network.last, 32),
      instanceId,
      name: routeEntryName(network, instanceId),
      dryRun: true,
      signal,
    });
  } catch (error) {
    if (!(error instanceof AliApiError)) throw error;
    const { reaction } = error;
    if (reaction.do !== "stop") {
      if (reaction.do === "credentials") throw error;
      return;
    }
    if (reaction.cause === "quota") {
      // Other hosts leave, and quotas are raised: to be waited out, without a lease.
      throw new Error(`Cannot use route table ${routeTableId}: ${tableFull(used, error)}`, {
        cause: error,
      });
    }
    // How much a dry run checks is not documented: only a plain denial counts.
    if (reaction.cause === "denied" || reaction.cause === "key" || reaction.cause === "clock") {
      throw error;
    }
    log.debug("A dry run of CreateRouteEntry was answered with an error", { error: error.message });
  }
}
