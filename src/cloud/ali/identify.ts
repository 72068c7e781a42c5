import type { AliVpcClaim, AliVpcConfig } from "../../backends/ali_vpc.ts";
import { OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import { abortable } from "../../util/abortable.ts";
import { RateLimiter } from "../rate_limiter.ts";
import { type AliVpcAccess, openAccess } from "./access.ts";
import { EcsClient, VpcClient } from "./client.ts";
import { CredentialsChain } from "./credentials.ts";
import {
  chooseEndpoint,
  type EndpointProbe,
  normalizeEndpoint,
  type Product,
} from "./endpoints.ts";
import { asStartupError } from "./errors.ts";
import { Metadata, METADATA_ENDPOINT } from "./metadata.ts";
import type { Clock } from "../routes/patience.ts";
import { RouteTable } from "../routes/route_table.ts";
import { lazyRpc, openRpc, type Rpc } from "./rpc.ts";
import { Silence } from "../routes/silence.ts";
import {
  type NamedInterface,
  SourceDestCheckTable,
  type SourceDestCheckTableOptions,
} from "../routes/source_dest_check.ts";

/** Options of {@linkcode identifyAliVpc}. */
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
  readonly probe?: EndpointProbe;
}

/** Who this instance is, as its metadata service says. */
export interface AliVpcInstance extends AliVpcClaim {
  readonly regionId: string;
}

/**
 * This instance is known, and nothing of the account has been asked yet: what a host needs that
 * has its route written by another one.
 */
export interface AliVpcIdentity extends AsyncDisposable {
  readonly instance: AliVpcInstance;
  /** Where the credentials come from, for messages; `undefined` until they were needed. */
  readonly credentialsSource: string | undefined;
  /** For how long the VPC service has answered none of this process's calls. */
  readonly vpcSilence: Silence;
  /**
   * The source/destination checks of `interfaces`, which are read anew each time; none of them costs
   * no call. Credentials are looked for only when a call is made.
   */
  makeSourceDestCheck(
    interfaces: () => readonly NamedInterface[],
    options?: Pick<SourceDestCheckTableOptions, "onLook">,
  ): SourceDestCheckTable;
  /**
   * Whether the account has the instance in this region, running or not.
   *
   * @throws {Error} If that cannot be told.
   */
  instanceExists(instanceId: string, options: { signal: AbortSignal }): Promise<boolean>;
  /**
   * Makes sure that this host can write routes: the credentials work and may do what is needed, the
   * right route tables are found, and the network is clear of the VPC's ranges. Once it has
   * succeeded, and found room for this host's entry, it answers the same without a call;
   * concurrent callers share one attempt, and one whose `signal` aborts leaves it to the others.
   *
   * @throws {OperatorError} What only a person can mend.
   * @throws {Error} What time may mend (throttling, 5xx, no connection): call again.
   */
  connect(options: { signal: AbortSignal }): Promise<AliVpcAccess>;
  /**
   * The entries of this instance, in whichever table of the VPC they are, as a Table that needs none
   * of them: for a host that leaves the cluster and has given back the subnets `released`. Nothing
   * else is checked.
   *
   * @throws {OperatorError} What only a person can mend.
   * @throws {Error} What time may mend: call again.
   */
  openLeftovers(options: LeftoversOptions): Promise<RouteTable>;
}

/** Options of {@linkcode AliVpcIdentity.openLeftovers}. */
export interface LeftoversOptions {
  /** Absent where the store has none, so that no entry can be the cluster's. */
  readonly clusterId: string | undefined;
  readonly released: readonly Prefix[];
  readonly signal: AbortSignal;
}

/** Carrier-grade range that holds metadata, DNS and cloud services in every VPC. */
const RESERVED = Prefix.parse("100.64.0.0/10");

/** Source/destination checks are looked at every so many resyncs: 5 min by default. */
const CHECK_FRESH_RESYNCS = 5;

/**
 * How fast one host calls each service, which counts an account's calls by action and minute, with
 * 300 as a usual limit: in bursts, enough for the checks at start or one batch; in the long run, well
 * below the limit for one action. A route writer makes about two calls a second while it creates
 * entries by the fifty, and one for each interface whose check is on; others make hardly any. Each
 * service has its own, so that neither waits for the other.
 */
const CALL_RATES = { vpc: { burst: 30, perSecond: 2 }, ecs: { burst: 30, perSecond: 3 } } as const;

/** One dated version per service, for good. */
const API_VERSIONS = { vpc: "2016-04-28", ecs: "2014-05-26" } as const;

const REGION = /^[a-z]+(-[a-z0-9]+)+$/;
const ID = /^[a-z]+-[a-z0-9-]{1,120}$/;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/**
 * Asks the metadata service who this instance is and checks that the config agrees. No call to the
 * VPC's or the ECS service is made and no credentials are needed.
 *
 * @throws {OperatorError} What only a person can mend.
 * @throws {Error} What time may mend (silent metadata): call again.
 */
export async function identifyAliVpc(options: AliVpcOptions): Promise<AliVpcIdentity> {
  const { config, network, signal, env, clock = {} } = options;
  if (network.family !== 4) {
    throw new OperatorError("Cannot use ali-vpc with an IPv6 network: it carries IPv4 only");
  }
  if (network.overlaps(RESERVED)) {
    throw new OperatorError(
      `Cannot use network ${network}: it overlaps ${RESERVED}, where Alibaba Cloud's own services ` +
        "are; choose another one",
    );
  }
  const metadata = new Metadata({
    endpoint: normalizeEndpoint(options.endpoints?.metadata ?? METADATA_ENDPOINT, "http"),
    allowV1: env("ALIBABA_CLOUD_IMDSV1_DISABLED")?.trim().toLowerCase() !== "true",
    ...clock,
  });
  return new Identity(options, metadata, await readInstance(metadata, config, { signal }));
}

class Identity implements AliVpcIdentity {
  readonly instance: AliVpcInstance;
  readonly vpcSilence = new Silence();
  readonly #options: AliVpcOptions;
  readonly #resources = new AsyncDisposableStack();
  readonly #lifetime = new AbortController();
  readonly #credentials: CredentialsChain;
  readonly #limiters: Readonly<Record<"vpc" | "ecs", RateLimiter>>;
  readonly #vpc: VpcClient;
  readonly #ecs: EcsClient;
  #access: Promise<AliVpcAccess> | undefined;

  constructor(options: AliVpcOptions, metadata: Metadata, instance: AliVpcInstance) {
    const { config, env, clock = {} } = options;
    const { regionId } = instance;
    this.#options = options;
    this.instance = instance;
    const sts = stsEndpoint(options, regionId);
    this.#credentials = this.#resources.use(
      new CredentialsChain({ config, env, metadata, stsEndpoint: sts, ...clock }),
    );
    this.#limiters = {
      vpc: new RateLimiter({ ...CALL_RATES.vpc, ...clock }),
      ecs: new RateLimiter({ ...CALL_RATES.ecs, ...clock }),
    };
    this.#vpc = new VpcClient(this.#rpc("vpc"), regionId);
    this.#ecs = new EcsClient(this.#rpc("ecs"), regionId);
  }

  get credentialsSource(): string | undefined {
    return this.#credentials.source;
  }

  makeSourceDestCheck(
    interfaces: () => readonly NamedInterface[],
    options: Pick<SourceDestCheckTableOptions, "onLook"> = {},
  ): SourceDestCheckTable {
    const { config, log, clock = {} } = this.#options;
    return new SourceDestCheckTable({
      ...options,
      ecs: this.#ecs,
      interfaces,
      log,
      freshMs: config.resyncSeconds * CHECK_FRESH_RESYNCS * 1_000,
      ...clock,
    });
  }

  async connect(options: { signal: AbortSignal }): Promise<AliVpcAccess> {
    options.signal.throwIfAborted();
    this.#access ??= this.#connect().then((access) => {
      // Other hosts leave, and quotas are raised.
      if (access.full !== undefined) this.#access = undefined;
      return access;
    }, (error) => {
      this.#access = undefined;
      throw error;
    });
    return await abortable(this.#access, options);
  }

  async instanceExists(
    instanceId: string,
    options: { signal: AbortSignal },
  ): Promise<boolean> {
    return await this.#ecs.instanceExists(instanceId, options);
  }

  async openLeftovers(
    { clusterId, released, signal }: LeftoversOptions,
  ): Promise<RouteTable> {
    const { network, log, clock } = this.#options;
    const { vpcId, instanceId } = this.instance;
    try {
      const tables = await this.#vpc.describeRouteTableList({ vpcId }, { signal });
      const routes = new RouteTable({
        vpc: this.#vpc,
        mark: { clusterId, network },
        instanceId,
        log,
        ...clock,
      });
      routes.setScope({
        routeTableIds: tables.filter(({ associateType }) => associateType === "VSwitch")
          .map(({ id }) => id),
        otherTableIds: [],
        claims: [],
        released,
      });
      return routes;
    } catch (error) {
      signal.throwIfAborted();
      throw asStartupError(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lifetime.abort(new Error("The identity of this instance is closed"));
    await Promise.allSettled([this.#access]);
    await this.#resources.disposeAsync();
  }

  async #connect(): Promise<AliVpcAccess> {
    const { signal } = this.#lifetime;
    const { config, network, log, clock } = this.#options;
    try {
      await this.#credentials.get({ signal });
      const access = await openAccess({
        instance: this.instance,
        vpc: this.#vpc,
        config,
        network,
        log,
        signal,
        ...(clock === undefined ? {} : { clock }),
      });
      // Who waits for room says so, each time it looks.
      const level = access.full !== undefined && config.overflow === "none" ? "debug" : "info";
      log[level]("Ready to use Alibaba Cloud", {
        region: this.instance.regionId,
        vpc: this.instance.vpcId,
        instance: this.instance.instanceId,
        tables: access.routeTableIds.join(","),
        ...(access.full === undefined ? {} : { full: access.full }),
        credentials: this.#credentials.source,
      });
      return access;
    } catch (error) {
      signal.throwIfAborted();
      throw asStartupError(error);
    }
  }

  #rpc(service: "vpc" | "ecs"): Rpc {
    const endpoint = endpointOf(this.#options, service, this.instance.regionId);
    return this.#resources.use(lazyRpc(service, async () =>
      await openRpc({
        service,
        endpoint: await endpoint(),
        apiVersion: API_VERSIONS[service],
        credentials: this.#credentials,
        limiter: this.#limiters[service],
        ...(service === "vpc" ? { silence: this.vpcSilence } : {}),
      })));
  }
}

/** A service's URL, looked up only when asked for; a given one is checked at once. */
function endpointOf(
  { endpoints, probe }: AliVpcOptions,
  product: Product,
  regionId: string,
): () => Promise<string> {
  const given = endpoints?.[product];
  if (given === undefined) return () => chooseEndpoint(product, regionId, probe);
  const url = normalizeEndpoint(given);
  return () => Promise.resolve(url);
}

/** The security token service's URL; RRSA's own variables choose region and network. */
function stsEndpoint(options: AliVpcOptions, regionId: string): () => Promise<string> {
  const region = options.env("ALIBABA_CLOUD_STS_REGION")?.trim() || regionId;
  if (options.endpoints?.sts === undefined && !REGION.test(region)) {
    return () =>
      Promise.reject(
        new OperatorError("Cannot use ALIBABA_CLOUD_STS_REGION: it is no region id"),
      );
  }
  return endpointOf(options, "sts", region);
}

/** Who this instance is, as the metadata service and, where given, the config say alike. */
async function readInstance(
  metadata: Metadata,
  config: AliVpcConfig,
  options: { signal: AbortSignal },
): Promise<AliVpcInstance> {
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
