/**
 * Backend `ali-vpc`: route entries of an Alibaba Cloud VPC, and a VXLAN device for peers without one.
 *
 * @module
 */
import * as v from "valibot";
import { FieldReader, PORT, VNI } from "../config/fields.ts";
import { ConfigError } from "../errors.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { type Address, MacAddress } from "../net/mod.ts";
import type { Secret } from "../secret.ts";
import type { DesiredState, SysctlSpec } from "../state/mod.ts";
import type { Backend, FamilySide, PlanContext } from "./backend.ts";
import { type Fault, isFault, leaveOut, lookAtPeer, NOTHING } from "./peers.ts";
import {
  DEFAULT_VNI,
  DEFAULT_VXLAN_PORT,
  macClaim,
  planTunnel,
  planVtep,
  type TunnelledPeer,
  vniFaults,
  vxlanLinkName,
} from "./vtep.ts";

/** The `Backend` object of an `ali-vpc` network config, checked. */
export interface AliVpcConfig {
  readonly accessKeyId?: Secret;
  readonly accessKeySecret?: Secret;
  /** Only together with the two above: a temporary key that nobody renews. */
  readonly securityToken?: Secret;
  /** Name of the instance RAM role; absent: what the metadata service names. */
  readonly ramRole?: string;
  /** Empty: the table bound to the instance's vSwitch, and those that peers need. */
  readonly routeTableIds: readonly string[];
  /** Absent: what the metadata service says. Given, the two must agree. */
  readonly regionId?: string;
  readonly vpcId?: string;
  /** How often the route entry is checked. */
  readonly resyncSeconds: number;
  /** `ignore` leaves the interface's source/destination check to the operator. */
  readonly sourceDestCheck: "disable" | "ignore";
  /**
   * How hosts whose entry does not fit into the route table are reached: through a VXLAN device, or
   * not at all.
   */
  readonly overflow: "none" | "vxlan";
  /** VXLAN network identifier and UDP port of that device. */
  readonly vni: number;
  readonly port: number;
  /** Custom entries that each table may hold; absent: what the service is found to allow. */
  readonly routeQuota?: number;
  /** How long an entry stays after its lease has ended. */
  readonly routeGraceSeconds: number;
}

/** What an `ali-vpc` host of ours says about itself in its lease's data. */
export interface AliVpcClaim {
  /** Where the lease's subnet is to lead. */
  readonly instanceId: string;
  /** The instance's primary interface. */
  readonly networkInterfaceId: string;
  readonly vpcId: string;
  readonly vSwitchId: string;
}

/** What the plan needs to know about the instance and the cluster. */
export interface AliVpcFacts extends AliVpcClaim {
  /** Every table that is to hold the route: the own ones and those that peers' vSwitches use. */
  readonly routeTableIds: readonly string[];
  /** Absent while every host has its entries. */
  readonly overflow?: AliVpcOverflow;
  /** Transmit checksum offload of the VXLAN device; absent: as the kernel has it. */
  readonly txChecksum?: boolean;
}

/** Who is to be reached through the VXLAN device; the same on every host of the cluster. */
export interface AliVpcOverflow {
  /** Keys of the leases whose hosts have no route entry, the own lease's perhaps among them. */
  readonly keys: ReadonlySet<string>;
  /** Whether the device is needed. */
  readonly vtep: boolean;
}

/** Sooner would spend the account's calls, later would leave a broken route for hours. */
const RESYNC_SECONDS = { min: 10, max: 3600, default: 60 };

/** Less would punish a host that restarts slowly; more would keep places from the living. */
const ROUTE_GRACE_SECONDS = { min: 60, max: 86_400, default: 600 };

/** Far above what the service grants. */
const ROUTE_QUOTA = { min: 1, max: 10_000 };

/**
 * `ali-vpc`: the VPC's route tables carry the pod traffic. Each host holds one route entry per
 * table, its own subnet to its own instance. The lease names instance and interface, for whichever
 * host writes the entries of all; upstream's hosts publish the address alone, and read no more.
 */
export const aliVpc: Backend<AliVpcConfig, AliVpcFacts> = {
  type: "ali-vpc",
  // IPv6 entries exist in system tables only, and demand exactly one IPv6 address per instance.
  families: [4],

  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    const [accessKeyId, accessKeySecret] = readAccessKey(fields);
    const securityToken = fields.secret("SecurityToken");
    const ramRole = matching(fields, "RamRole", ROLE_NAME);
    const regionId = matching(fields, "RegionID", REGION_ID);
    const vpcId = matching(fields, "VpcID", VPC_ID);
    const routeTableIds = (fields.stringList("RouteTableID") ?? []).map((id) => id.trim());
    const badId = routeTableIds.find((id) => !ROUTE_TABLE_ID.pattern.test(id));
    if (badId !== undefined) {
      fields.faultOf("RouteTableID", `must be ${ROUTE_TABLE_ID.noun}, or a list of them`);
    }
    const resyncSeconds = fields.integer("ResyncSeconds", RESYNC_SECONDS);
    const sourceDestCheck = fields.choice("SourceDestCheck", ["disable", "ignore"]);
    const overflow = fields.choice("Overflow", ["none", "vxlan"]);
    const vni = fields.integer("VNI", VNI);
    const port = fields.integer("Port", PORT);
    const routeQuota = fields.integer("RouteQuota", ROUTE_QUOTA);
    const routeGraceSeconds = fields.integer("RouteGraceSeconds", ROUTE_GRACE_SECONDS);
    if (securityToken !== undefined && accessKeyId === undefined) {
      fields.fault("Backend.SecurityToken needs AccessKeyID and AccessKeySecret");
    }
    const warnings = fields.finish();
    return {
      config: {
        ...(accessKeyId ? { accessKeyId } : {}),
        ...(accessKeySecret ? { accessKeySecret } : {}),
        ...(securityToken ? { securityToken } : {}),
        ...(ramRole ? { ramRole } : {}),
        routeTableIds: [...new Set(routeTableIds)],
        ...(regionId ? { regionId } : {}),
        ...(vpcId ? { vpcId } : {}),
        resyncSeconds: resyncSeconds ?? RESYNC_SECONDS.default,
        sourceDestCheck: sourceDestCheck ?? "disable",
        overflow: overflow ?? "none",
        vni: vni ?? DEFAULT_VNI,
        port: port ?? DEFAULT_VXLAN_PORT,
        ...(routeQuota === undefined ? {} : { routeQuota }),
        routeGraceSeconds: routeGraceSeconds ?? ROUTE_GRACE_SECONDS.default,
      },
      warnings,
    };
  },

  changesKernel: ({ overflow }) => overflow === "vxlan",

  checkNetwork: ({ overflow, vni }, network) => overflow === "vxlan" ? vniFaults(vni, network) : [],

  // Through the VXLAN device less fits: there the host answers what is larger with the MTU that
  // does (RFC 1191), so that no packet on the VPC's own routes has to be smaller for it.
  overheadBytes: () => 0,

  announce(_config, host, facts) {
    if (host.publicIp === undefined) {
      throw new ConfigError("the host", ["ali-vpc needs an IPv4 address to publish"]);
    }
    return { publicIp: host.publicIp, backendType: "", backendData: encodeClaim(facts) };
  },

  planHost(context) {
    const { config, facts, own } = context;
    const destination = own.subnet.ipv4;
    return {
      ...planDevice(context),
      cloudRoutes: destination === undefined ? [] : facts.routeTableIds.map((routeTableId) => ({
        routeTableId,
        destination,
        instanceId: facts.instanceId,
      })),
      sourceDestChecks: config.sourceDestCheck === "ignore"
        ? []
        : [{ networkInterfaceId: facts.networkInterfaceId, enabled: false }],
    };
  },

  claims(context, peer) {
    const found = findTunnelled(context, peer);
    return found && "mac" in found ? [macClaim(4, found.mac)] : [];
  },

  planPeer(context, peer, holderOf) {
    const found = findTunnelled(context, peer);
    if (!found || isFault(found)) return found ? leaveOut(peer.key, found) : NOTHING;
    const side = overflowSide(context)!;
    const link = vxlanLinkName(4, context.config.vni);
    const holder = holderOf(macClaim(4, found.mac));
    return planTunnel(link, vtepMac(side.publicAddress), found, holder);
  },
};

type Context = PlanContext<AliVpcConfig, AliVpcFacts>;

/** The host's side of the overflow, where there is one. */
function overflowSide(
  { config, facts, sides: [side] }: Context,
): (FamilySide & { readonly publicAddress: Address }) | undefined {
  if (config.overflow !== "vxlan" || !facts.overflow?.vtep) return undefined;
  const publicAddress = side?.publicAddress;
  return side && publicAddress ? { ...side, publicAddress } : undefined;
}

/** The overflow's device. */
function planDevice(context: Context): DesiredState {
  const side = overflowSide(context);
  if (!side) return {};
  const { config: { vni, port }, host, facts: { txChecksum } } = context;
  const link = vxlanLinkName(4, vni);
  return {
    ...planVtep(side, {
      vni,
      port,
      gbp: false,
      learning: false,
      mac: vtepMac(side.publicAddress),
      underlay: host.link,
      underlayMtuBytes: host.mtuBytes,
    }),
    ...(txChecksum === undefined ? {} : { offloads: [{ link, txChecksum }] }),
    // While hosts change over, one at a time, packets come by the one way and go by the other.
    sysctls: [link, host.link].map(looseReversePath),
  };
}

/**
 * A peer that is reached through the device: there are tunnels between each host without route
 * entries and every other of ours. Both ends of a pair come to the same: what matters is whether
 * either has none, and the MAC of a device follows from the public address, which a pair of leases
 * says alike.
 */
function findTunnelled(context: Context, peer: Lease): TunnelledPeer | Fault | undefined {
  const { facts: { overflow }, own } = context;
  const side = overflowSide(context);
  if (!side || !(overflow?.keys.has(own.key) || overflow?.keys.has(peer.key))) return undefined;
  const claim = readAliVpcClaim(peer);
  if (typeof claim !== "object") {
    // The VPC takes our packets there, but nothing of the other host's to us.
    const reason = claim ?? "it is no host of ours, so it does not know this one's VXLAN device";
    return ["peer-stranger", reason];
  }
  const found = lookAtPeer(side, "", peer);
  return isFault(found) ? found : { ...found, mac: vtepMac(found.publicAddress) };
}

/** `0e:a1` (a locally administered unicast MAC) and the four bytes of `address`. */
function vtepMac(address: Address): MacAddress {
  return MacAddress.fromBytes(Uint8Array.of(0x0e, 0xa1, ...address.toBytes()));
}

/**
 * No strict reverse path filter on `link`. Of its own and that of all links the higher number
 * counts (Linux, ip-sysctl.rst), where 1 is strict, 2 is loose and 0 is none.
 */
function looseReversePath(link: string): SysctlSpec {
  return {
    name: `net/ipv4/conf/${link}/rp_filter`,
    value: "2",
    accepts: ["0"],
    raisedBy: "net/ipv4/conf/all/rp_filter",
  };
}

/** The members of a lease's data, as they are written. */
const CLAIM_MEMBERS = {
  instanceId: "InstanceID",
  networkInterfaceId: "NetworkInterfaceID",
  vpcId: "VpcID",
  vSwitchId: "VSwitchID",
} as const satisfies Record<keyof AliVpcClaim, string>;

function encodeClaim(claim: AliVpcClaim): Json {
  return Object.fromEntries(
    Object.entries(CLAIM_MEMBERS).map((
      [name, member],
    ) => [member, claim[name as keyof AliVpcClaim]]),
  );
}

/** An id of the service, of which the metadata service's are too. */
const id = v.pipe(v.string(), v.regex(/^[a-z]+-[a-z0-9-]{1,120}$/));

const claimSchema = v.object({
  instanceId: id,
  networkInterfaceId: id,
  vpcId: id,
  vSwitchId: id,
});

/** What was made of a lease's data, which stays the same object until it changes. */
const claims = new WeakMap<object, AliVpcClaim | string>();

/**
 * What a host says about its instance; `undefined` where its lease says nothing, as those of
 * upstream and of other backends do, and a reason where that cannot be read. Keys match without
 * case. Nobody vouches for it but whoever may write to the store.
 */
export function readAliVpcClaim(
  { attributes: { backendType, backendData: data } }: Pick<Lease, "attributes">,
): AliVpcClaim | string | undefined {
  if (backendType !== "" || data === undefined || data === null) return undefined;
  if (typeof data !== "object" || Array.isArray(data)) return "its backend data is no object";
  let claim = claims.get(data);
  if (claim === undefined) claims.set(data, claim = parseClaim(data as Record<string, Json>));
  return claim;
}

function parseClaim(data: Record<string, Json>): AliVpcClaim | string {
  const folded = new Map(Object.entries(data).map(([name, value]) => [name.toLowerCase(), value]));
  const result = v.safeParse(
    claimSchema,
    Object.fromEntries(
      Object.entries(CLAIM_MEMBERS).map((
        [name, member],
      ) => [name, folded.get(member.toLowerCase())]),
    ),
  );
  if (result.success) return result.output;
  const bad = result.issues.map((issue) => CLAIM_MEMBERS[v.getDotPath(issue) as keyof AliVpcClaim]);
  return `its backend data has no usable ${bad.join(", ")}`;
}

/** Both parts of the AccessKey, or none: upstream reads one alone as none, so it is no fault. */
function readAccessKey(fields: FieldReader): [Secret, Secret] | [undefined, undefined] {
  const id = fields.secret("AccessKeyID");
  const secret = fields.secret("AccessKeySecret");
  if (id !== undefined && secret !== undefined) return [id, secret];
  if (id !== undefined || secret !== undefined) {
    fields.warn(
      `Backend.AccessKey${id ? "ID" : "Secret"} has no effect without Backend.AccessKey` +
        `${id ? "Secret" : "ID"}; credentials are looked for elsewhere`,
    );
  }
  return [undefined, undefined];
}

/** A form of text, and what to call it. */
interface Form {
  readonly pattern: RegExp;
  readonly noun: string;
}

const ROLE_NAME: Form = { pattern: /^[\w.@-]{1,64}$/, noun: "the name of a RAM role" };
const REGION_ID: Form = {
  pattern: /^[a-z]+(-[a-z0-9]+)+$/,
  noun: "a region id such as cn-hangzhou",
};
const VPC_ID: Form = { pattern: /^vpc-[a-z0-9-]+$/, noun: "an id that begins with vpc-" };
const ROUTE_TABLE_ID: Form = { pattern: /^vtb-[a-z0-9-]+$/, noun: "an id that begins with vtb-" };

function matching(fields: FieldReader, name: string, form: Form): string | undefined {
  const text = fields.string(name)?.trim();
  if (text === undefined || form.pattern.test(text)) return text;
  fields.faultOf(name, `must be ${form.noun}`);
  return undefined;
}
