import * as v from "valibot";
import { Address, MacAddress, Prefix } from "../../src/net/mod.ts";
import { NEXT_HOP_TYPES } from "./model.ts";

const text = v.pipe(v.string(), v.nonEmpty());
const cidr = v.pipe(v.string(), v.check((s) => Prefix.tryParse(s) !== undefined, "is no CIDR"));
const address = v.pipe(v.string(), v.check((s) => Address.tryParse(s) !== undefined, "is no IP"));
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const share = v.pipe(v.number(), v.minValue(0), v.maxValue(1));

const range = v.pipe(
  v.strictObject({ minMs: count, maxMs: count }),
  v.check((r) => r.minMs <= r.maxMs, "minMs is above maxMs"),
);

const nextHop = v.strictObject({
  type: v.picklist([...NEXT_HOP_TYPES, "local"]),
  id: v.string(),
  weight: v.optional(count),
});

/** A route entry put there by an operator, not through the API. */
export const routeEntryConfig = v.strictObject({
  id: v.optional(text),
  destination: cidr,
  nextHops: v.array(nextHop),
  type: v.optional(v.picklist(["Custom", "System", "BGP", "CEN", "ECR"]), "Custom"),
  name: v.optional(v.string(), ""),
  description: v.optional(v.string(), ""),
  serviceType: v.optional(v.string()),
});

const routeTableConfig = v.strictObject({
  id: text,
  vpcId: v.optional(text),
  type: v.optional(v.picklist(["System", "Custom"]), "Custom"),
  /** An IPv4 gateway's id makes this a gateway table. */
  gatewayId: v.optional(text),
  name: v.optional(v.string(), ""),
  quota: v.optional(count),
  entries: v.optional(v.array(routeEntryConfig), []),
});

const vpcConfig = v.strictObject({
  id: text,
  regionId: v.optional(text),
  accountId: v.optional(text),
  name: v.optional(v.string(), ""),
  cidr,
  secondaryCidrs: v.optional(v.array(cidr), []),
  userCidrs: v.optional(v.array(cidr), []),
  ipv6Cidr: v.optional(cidr),
  routerId: v.optional(text),
  gateways: v.optional(
    v.array(v.strictObject({ id: text, type: v.picklist(NEXT_HOP_TYPES) })),
    [],
  ),
});

const vSwitchConfig = v.strictObject({
  id: text,
  vpcId: v.optional(text),
  zoneId: v.optional(text),
  name: v.optional(v.string(), ""),
  cidr,
  ipv6Cidr: v.optional(cidr),
  routeTableId: v.optional(text),
});

/** An instance to start. */
export const instanceConfig = v.strictObject({
  id: text,
  name: v.optional(v.string(), ""),
  vSwitchId: text,
  privateIp: address,
  publicIp: v.optional(address),
  ipv6s: v.optional(v.array(address), []),
  /** Prefixes delegated to the primary interface. */
  ipv4Prefixes: v.optional(v.array(cidr), []),
  ipv6Prefixes: v.optional(v.array(cidr), []),
  mac: v.optional(v.pipe(v.string(), v.transform((s) => MacAddress.parse(s).toString()))),
  networkInterfaceId: v.optional(text),
  sourceDestCheck: v.optional(v.boolean(), true),
  ramRole: v.optional(text),
  httpTokens: v.optional(v.picklist(["optional", "required"]), "optional"),
  /** Further interfaces of the instance. */
  secondaryInterfaces: v.optional(
    v.array(v.strictObject({
      id: text,
      vSwitchId: v.optional(text),
      privateIp: address,
      mac: v.optional(text),
      sourceDestCheck: v.optional(v.boolean(), true),
    })),
    [],
  ),
});

/** Actions as `vpc:CreateRouteEntry`, `ecs:*` or `*`. */
const actions = v.array(text);

const accessKeyConfig = v.strictObject({
  id: text,
  secret: text,
  accountId: v.optional(text),
  active: v.optional(v.boolean(), true),
  /** @default everything */
  allow: v.optional(actions),
});

const roleConfig = v.strictObject({
  name: text,
  accountId: v.optional(text),
  allow: v.optional(actions),
  /** How long credentials from the metadata service live. */
  lifetimeMs: v.optional(count, 6 * 3_600_000),
  /** The metadata service hands out the next credentials when the old ones have this left. */
  renewBeforeMs: v.optional(count, 30 * 60_000),
  /** Identity providers whose tokens may assume this role. */
  oidcProviderArns: v.optional(v.array(text), []),
});

const throttleConfig = v.strictObject({
  windowMs: v.optional(count, 60_000),
  /** Calls per region, account and action in a window; absent: no limit. */
  limit: v.optional(count),
  /** Limits of single actions. */
  limits: v.optional(v.record(v.string(), count), {}),
});

/** How the service behaves; each member can be changed while it runs. */
export const behaviourConfig = v.strictObject({
  /** How long an accepted write stays Pending, Modifying or Deleting. */
  delays: v.optional(range, { minMs: 0, maxMs: 5 }),
  /** The VPC refuses writes this much longer after one has settled. */
  lockAfterWriteMs: v.optional(count, 0),
  /** Share of writes that meet a conflict although nothing of this VPC is in progress. */
  conflictProbability: v.optional(share, 0),
  /** Lists show an accepted create, and stop to show a finished delete, this much later. */
  listLagMs: v.optional(count, 0),
  /** How long a client token counts as in progress. */
  tokenProcessingMs: v.optional(count, 0),
  /** Custom entries per table. */
  quota: v.optional(count, 200),
  /** Whether a batch that does not fit is refused entry by entry or as a whole. */
  batchQuota: v.optional(v.picklist(["entry", "call"]), "entry"),
  throttle: v.optional(throttleConfig, {}),
  /** NextToken of a list is refused after this. */
  nextTokenLifetimeMs: v.optional(count, 600_000),
  /** Spelling of the hop type Instance in lists; `mixed` uses both in one answer. */
  instanceSpelling: v.optional(v.picklist(["Instance", "instance", "mixed"]), "mixed"),
  /** The code of a RAM denial. */
  denial: v.optional(v.picklist(["Forbidden.RAM", "NoPermission"]), "Forbidden.RAM"),
  /** Share of ModifyNetworkInterfaceAttribute calls that meet InvalidOperation.Conflict. */
  interfaceConflictProbability: v.optional(share, 0),
  /** Whether plain HTTP is refused with InvalidProtocol.NeedSsl. */
  requireTls: v.optional(v.boolean(), false),
  metadata: v.optional(
    v.strictObject({
      /** `false`: connections are taken and never answered. */
      reachable: v.optional(v.boolean(), true),
      /** Requests per second of one instance before 429; absent: no limit. */
      burst: v.optional(count),
    }),
    {},
  ),
});

const requestMatch = v.strictObject({
  /** `CreateRouteEntry`, `Describe*`, `GET /latest/meta-data/mac`, `*`. @default every one */
  action: v.optional(v.union([text, v.array(text)])),
  service: v.optional(v.picklist(["vpc", "ecs", "sts", "metadata"])),
  accessKeyId: v.optional(text),
  source: v.optional(text),
  /** Requests that name this table, in a batch at any place. */
  routeTableId: v.optional(text),
});

/** One rule of misbehaviour; see faults.ts. */
export const faultConfig = v.strictObject({
  match: v.optional(requestMatch, {}),
  /** How many matching requests are left alone first. */
  skip: v.optional(count, 0),
  /** How many matching requests are hit; absent: all. */
  times: v.optional(count),
  /** How long the rule holds from when it was added; absent: until removed. */
  durationMs: v.optional(count),
  probability: v.optional(share, 1),
  effect: v.variant("kind", [
    v.strictObject({ kind: v.literal("drop") }),
    v.strictObject({ kind: v.literal("hang") }),
    v.strictObject({ kind: v.literal("delay"), delayMs: count }),
    v.strictObject({ kind: v.literal("delayAnswer"), delayMs: count }),
    v.strictObject({ kind: v.literal("slowTask"), taskMs: count }),
    v.strictObject({ kind: v.literal("truncate") }),
    v.strictObject({ kind: v.literal("performThenDrop") }),
    v.strictObject({
      kind: v.literal("performThenError"),
      status: count,
      code: v.optional(text),
      message: v.optional(text),
    }),
    v.strictObject({ kind: v.literal("html"), status: v.optional(count, 502) }),
    v.strictObject({ kind: v.literal("empty"), status: v.optional(count, 204) }),
    v.strictObject({
      kind: v.literal("error"),
      status: count,
      code: v.optional(text),
      message: v.optional(text),
    }),
  ]),
});

/** Everything a cloud starts with. */
export const cloudConfig = v.strictObject({
  seed: v.optional(count, 1),
  regionId: v.optional(text, "cn-hangzhou"),
  /** Owner of whatever names no other; 16 digits, as real ones have. */
  accountId: v.optional(text, "1234567890123456"),
  vpcs: v.pipe(v.array(vpcConfig), v.minLength(1)),
  vSwitches: v.array(vSwitchConfig),
  routeTables: v.optional(v.array(routeTableConfig), []),
  instances: v.optional(v.array(instanceConfig), []),
  accessKeys: v.optional(v.array(accessKeyConfig), []),
  roles: v.optional(v.array(roleConfig), []),
  behaviour: v.optional(behaviourConfig, {}),
  faults: v.optional(v.array(faultConfig), []),
});

/** What the simulator's own process listens on. */
export const processConfig = v.strictObject({
  /** `address:port`, with `https://` before it for TLS; services may share one. */
  listen: v.strictObject({ vpc: text, ecs: text, sts: text, metadata: text }),
  tls: v.optional(v.strictObject({ certificateFile: text, keyFile: text })),
  /** Path of the Unix socket of the control API. */
  controlSocket: text,
  cloud: cloudConfig,
});

export type CloudConfig = v.InferInput<typeof cloudConfig>;
export type ProcessConfig = v.InferInput<typeof processConfig>;
export type InstanceConfig = v.InferInput<typeof instanceConfig>;
export type RouteEntryConfig = v.InferInput<typeof routeEntryConfig>;
export type BehaviourConfig = v.InferInput<typeof behaviourConfig>;
export type Behaviour = v.InferOutput<typeof behaviourConfig>;
export type FaultConfig = v.InferInput<typeof faultConfig>;
export type Fault = v.InferOutput<typeof faultConfig>;
export type FaultEffect = Fault["effect"];

/**
 * `input` as `schema` has it, defaults filled in.
 *
 * @throws {TypeError} With every fault and where it is.
 */
export function parseConfig<const Schema extends v.GenericSchema>(
  schema: Schema,
  input: unknown,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, input);
  if (result.success) return result.output;
  const faults = result.issues.map((issue) =>
    `${v.getDotPath(issue) ?? "(root)"}: ${issue.message}`
  );
  throw new TypeError(`Cannot use the simulator's config: ${faults.join("; ")}`);
}
