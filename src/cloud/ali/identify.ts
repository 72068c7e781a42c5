/** Who this instance is, and the services of its region. @module */
import type { AliVpcClaim, AliVpcConfig } from "../../backends/ali_vpc.ts";
import { OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import { abortable } from "../../util/abortable.ts";
import { RateLimiter } from "../rate_limiter.ts";
import type { CallOptions, Clock, Cloud, CloudAccess, CloudInstance } from "../routes/provider.ts";
import { Silence } from "../routes/silence.ts";
import { openAccess } from "./access.ts";
import { CredentialsChain } from "./credentials.ts";
import { EcsClient } from "./ecs_client.ts";
import {
  chooseEndpoint,
  type EndpointProbe,
  normalizeEndpoint,
  type Product,
} from "./endpoints.ts";
import { asStartupError } from "./errors.ts";
import { Metadata, METADATA_ENDPOINT } from "./metadata.ts";
import { PopRpc, type Rpc } from "./rpc.ts";
import { VpcClient } from "./vpc_client.ts";

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
  readonly env: (name: string) => string | undefined;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Another clock than the system's, for tests. */
  readonly clock?: Clock;
  /** Looks a host name up. @default {node:dns lookup} */
  readonly probe?: EndpointProbe;
}

/** Who this instance is, as its metadata service says. */
export interface AliVpcInstance extends AliVpcClaim, CloudInstance {
  readonly regionId: string;
}

/** Carrier-grade range that holds metadata, DNS and cloud services in every VPC. */
const RESERVED = Prefix.parse("100.64.0.0/10");

/**
 * How fast one host calls each service, which counts an account's calls by action and minute,
 * usually up to 300. Bursts suffice for the checks at the start or one batch. A leader makes about
 * two calls a second while it creates entries in batches, and one for each interface whose check is
 * on; others hardly any.
 */
const CALL_RATES = { vpc: { burst: 30, perSecond: 2 }, ecs: { burst: 30, perSecond: 3 } } as const;

/** One dated version per service, for good. */
const API_VERSIONS = { vpc: "2016-04-28", ecs: "2014-05-26" } as const;

const REGION = /^[a-z]+(-[a-z0-9]+)+$/;
const ID = /^[a-z]+-[a-z0-9-]{1,120}$/;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/**
 * Asks the metadata service who this instance is and checks that the config agrees, without calls
 * to the VPC's or ECS service and without credentials.
 *
 * @throws {OperatorError} What needs an operator.
 * @throws {Error} What may pass (silent metadata): call again.
 */
export async function identifyAliVpc(options: AliVpcOptions): Promise<AliCloud> {
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
  return new AliCloud(options, metadata, await readInstance(metadata, config, { signal }));
}

/** Alibaba Cloud, as seen from this instance. */
export class AliCloud implements Cloud {
  readonly instance: AliVpcInstance;
  readonly routes: VpcClient;
  readonly interfaces: EcsClient;
  readonly clock: Partial<Clock>;
  readonly silence = new Silence();
  readonly #options: AliVpcOptions;
  readonly #resources = new AsyncDisposableStack();
  readonly #lifetime = new AbortController();
  readonly #credentials: CredentialsChain;
  #access: Promise<CloudAccess> | undefined;

  constructor(options: AliVpcOptions, metadata: Metadata, instance: AliVpcInstance) {
    const { config, env, clock = {} } = options;
    const { regionId } = instance;
    this.#options = options;
    this.instance = instance;
    this.clock = clock;
    const sts = stsEndpoint(options, regionId);
    this.#credentials = this.#resources.use(
      new CredentialsChain({ config, env, metadata, stsEndpoint: sts, ...clock }),
    );
    this.routes = new VpcClient(this.#rpc("vpc"), instance);
    this.interfaces = new EcsClient(this.#rpc("ecs"), regionId);
  }

  get credentialsSource(): string | undefined {
    return this.#credentials.source;
  }

  async connect(options: CallOptions): Promise<CloudAccess> {
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

  instanceExists(instanceId: string, options: CallOptions): Promise<boolean> {
    return this.interfaces.instanceExists(instanceId, options);
  }

  async listTables({ signal }: CallOptions): Promise<readonly string[]> {
    try {
      const tables = await this.routes.listTables({ signal });
      return tables.filter(({ servesInstances }) => servesInstances).map(({ id }) => id);
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

  async #connect(): Promise<CloudAccess> {
    const { signal } = this.#lifetime;
    const { config, log } = this.#options;
    try {
      await this.#credentials.get({ signal });
      const { instance, routes: vpc, clock } = this;
      const access = await openAccess({ ...this.#options, instance, vpc, clock, signal });
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
    return this.#resources.use(
      new PopRpc({
        service,
        endpoint: endpointOf(this.#options, service, this.instance.regionId),
        apiVersion: API_VERSIONS[service],
        credentials: this.#credentials,
        limiter: new RateLimiter({ ...CALL_RATES[service], ...this.clock }),
        ...(service === "vpc" ? { silence: this.silence } : {}),
      }),
    );
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
