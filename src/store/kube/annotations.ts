/**
 * What a node says of its lease: upstream's annotations, byte for byte, and its pod CIDRs.
 *
 * @module
 */
import * as v from "valibot";
import { encodeLeaseKey, parseLeaseValue } from "../../lease/codec.ts";
import type { Json, LeaseAttributes, LeaseSubnet } from "../../lease/lease.ts";
import type { LeaseEntry } from "../../lease/lease_map.ts";
import { Address, type Family, Prefix } from "../../net/mod.ts";
import type { KubeObject } from "./follow.ts";

/** The names of the annotations below one prefix. */
export interface AnnotationNames {
  readonly managed: string;
  readonly backendType: string;
  readonly data: Readonly<Record<Family, string>>;
  readonly publicIp: Readonly<Record<Family, string>>;
  /** An operator's: stands in for the published address. */
  readonly overwrite: Readonly<Record<Family, string>>;
  /** An operator's: as `--public-ip`. */
  readonly nodePublicIp: Readonly<Record<Family, string>>;
}

/** As upstream checks it: some domain, a slash, and perhaps a beginning of names. */
const PREFIX = /(?:[a-z0-9_-]+\.)+[a-z0-9_-]+\/(?:[a-z0-9_-]+-)?$/;

/** The names, or what `prefix` must be. */
export function annotationNames(prefix: string): AnnotationNames | string {
  let full = prefix;
  if (!full.includes("/")) full += "/";
  if (!/[/-]$/.test(full)) full += "-";
  if (full.split("/").length > 2) return "it must have one slash at most";
  if (!PREFIX.test(full)) {
    return "it must be a domain such as flannel.alpha.coreos.com, or domain/name";
  }
  const name = (rest: string) => full + rest;
  return {
    managed: name("kube-subnet-manager"),
    backendType: name("backend-type"),
    data: { 4: name("backend-data"), 6: name("backend-v6-data") },
    publicIp: { 4: name("public-ip"), 6: name("public-ipv6") },
    overwrite: { 4: name("public-ip-overwrite"), 6: name("public-ipv6-overwrite") },
    nodePublicIp: { 4: name("node-public-ip"), 6: name("node-public-ipv6") },
  };
}

/** What matters of a Node. Nothing about it is trusted. */
export interface KubeNode {
  readonly name: string;
  readonly uid: string;
  readonly createdAt: string;
  /** `undefined` while none is assigned. */
  readonly podCidrs: readonly string[] | undefined;
  readonly annotations: Readonly<Record<string, string>>;
}

const nodeSchema = v.object({
  metadata: v.object({
    name: v.string(),
    uid: v.optional(v.string(), ""),
    creationTimestamp: v.nullish(v.string(), ""),
    annotations: v.nullish(v.record(v.string(), v.string())),
  }),
  spec: v.optional(v.object({
    podCIDR: v.optional(v.string(), ""),
    podCIDRs: v.nullish(v.array(v.string())),
  })),
});

/** What matters of an object; the CIDRs are `known` where the object is metadata alone. */
export function parseNode(
  object: unknown,
  names: AnnotationNames,
  known?: readonly string[],
): KubeNode | undefined {
  const parsed = v.safeParse(nodeSchema, object);
  if (!parsed.success) return undefined;
  const { metadata: { name, uid, creationTimestamp, annotations }, spec } = parsed.output;
  const cidrs = spec?.podCIDRs?.length ? spec.podCIDRs : spec?.podCIDR ? [spec.podCIDR] : known;
  const kept = allNames(names).flatMap((each) => {
    const value = annotations?.[each];
    return value === undefined ? [] : [[each, value] as const];
  });
  const createdAt = creationTimestamp ?? "";
  return { name, uid, createdAt, podCidrs: cidrs, annotations: Object.fromEntries(kept) };
}

/** `object` with what {@linkcode parseNode} looks at alone; a whole one has ten kilobytes. */
export function trimNode(object: KubeObject, names: AnnotationNames): KubeObject {
  const node = parseNode(object, names);
  if (node === undefined) return object;
  const { name, uid, createdAt, podCidrs, annotations } = node;
  const { resourceVersion } = object.metadata;
  const metadata = { name, uid, resourceVersion, creationTimestamp: createdAt, annotations };
  return { metadata, ...(podCidrs === undefined ? {} : { spec: { podCIDRs: podCidrs } }) };
}

function allNames(names: AnnotationNames): readonly string[] {
  const { managed, backendType, data, publicIp, overwrite, nodePublicIp } = names;
  const families = [data, publicIp, overwrite, nodePublicIp];
  return [managed, backendType, ...families.flatMap((each) => [each[4], each[6]])];
}

/** Whether a daemon serves the node. */
export function isManaged(node: KubeNode, names: AnnotationNames): boolean {
  return node.annotations[names.managed] === "true";
}

/** Another one for each Node object, even of the same name. */
export function leaseKey({ name, uid }: Pick<KubeNode, "name" | "uid">): string {
  return `${name}/${uid}`;
}

/**
 * The entry of a node's lease; `undefined` while it has none. What is wrong in it is left for its
 * reader to refuse by name, but for one family of two: the other one is good all the same.
 */
export function leaseEntry(node: KubeNode, names: AnnotationNames): LeaseEntry | undefined {
  if (!isManaged(node, names) || node.podCidrs === undefined) return undefined;
  const { annotations } = node;
  const subnets = subnetOf(node.podCidrs);
  const isUsable = (family: Family) =>
    subnets[`ipv${family}`] !== undefined &&
    Address.tryParse(annotations[names.publicIp[family]] ?? "")?.family === family;
  const families = ([4, 6] as const).filter(isUsable);
  const subnet: LeaseSubnet = families.length === 0
    ? subnets
    : Object.fromEntries(families.map((family) => [`ipv${family}`, subnets[`ipv${family}`]]));
  return {
    key: leaseKey(node),
    subnet: subnet.ipv4 || subnet.ipv6 ? encodeLeaseKey(subnet) : node.podCidrs.join(","),
    value: leaseValue(annotations, names, families),
    order: `${node.createdAt} ${node.name} ${node.uid}`,
  };
}

/** The value as etcd would hold it; text that is none where an annotation is none. */
function leaseValue(
  annotations: KubeNode["annotations"],
  names: AnnotationNames,
  families: readonly Family[],
): string {
  const address = (family: Family) => annotations[names.publicIp[family]];
  const isGood = (family: Family) => families.length === 0 || families.includes(family);
  const members: Record<string, unknown> = {
    PublicIP: isGood(4) ? address(4) ?? "0.0.0.0" : "0.0.0.0",
    PublicIPv6: isGood(6) ? address(6) ?? null : null,
  };
  const type = annotations[names.backendType];
  if (type) members["BackendType"] = type;
  for (const [family, member] of [[4, "BackendData"], [6, "BackendV6Data"]] as const) {
    if (!isGood(family)) continue;
    const text = annotations[names.data[family]];
    if (text === undefined || text === "" || text === "null") continue;
    try {
      members[member] = JSON.parse(text);
    } catch {
      return `${names.data[family]} is not JSON`;
    }
  }
  return JSON.stringify(members);
}

/** The subnets that CIDRs name, one of each family at most; what is no CIDR is left out. */
export function subnetOf(cidrs: readonly string[]): LeaseSubnet {
  const subnet: { ipv4?: Prefix; ipv6?: Prefix } = {};
  for (const text of cidrs) {
    const prefix = parseCidr(text);
    if (prefix !== undefined) subnet[`ipv${prefix.family}`] ??= prefix;
  }
  return subnet;
}

/** As Go's ParseCIDR, which drops host bits; an IPv4-mapped one is of both families, and is none. */
function parseCidr(text: string): Prefix | undefined {
  const [address, length] = text.split("/");
  const parsed = Address.tryParse(address ?? "");
  if (parsed === undefined || parsed.isIpv4Mapped()) return undefined;
  if (!/^\d{1,3}$/.test(length ?? "")) return undefined;
  const bits = Number(length);
  return bits > (parsed.family === 4 ? 32 : 128)
    ? undefined
    : Prefix.tryParse(`${parsed.truncate(bits)}/${bits}`);
}

/**
 * The subnets of a node in these networks.
 *
 * @throws {RangeError} With the reason if one is no CIDR, or is outside.
 */
export function ownSubnet(
  { name, podCidrs = [] }: Pick<KubeNode, "name" | "podCidrs">,
  network: { readonly ipv4?: NetworkRange | undefined; readonly ipv6?: NetworkRange | undefined },
): LeaseSubnet {
  const subnet: { ipv4?: Prefix; ipv6?: Prefix } = {};
  if (podCidrs.length > 2) {
    throw new RangeError(`node "${name}" pod cidrs should be IPv4/IPv6 only or dualstack`);
  }
  for (const text of podCidrs) {
    const prefix = parseCidr(text);
    if (prefix === undefined) throw new RangeError(`node "${name}" has the pod CIDR "${text}"`);
    const range = network[`ipv${prefix.family}`];
    if (range === undefined) continue; // the cluster has a family more than this network
    if (!range.network.contains(prefix)) {
      // Upstream's words, which people look for.
      throw new RangeError(
        `subnet "${range.network}" specified in the flannel net config doesn't contain ` +
          `"${prefix}" PodCIDR of the "${name}" node`,
      );
    }
    subnet[`ipv${prefix.family}`] = prefix;
  }
  for (const family of [4, 6] as const) {
    if (network[`ipv${family}`] === undefined || subnet[`ipv${family}`]) continue;
    if (subnet.ipv4 || subnet.ipv6) continue; // one family switched on later: the other one works
    throw new RangeError(
      `node "${name}" has no IPv${family} pod CIDR, only ${podCidrs.join(", ")}`,
    );
  }
  return subnet;
}

interface NetworkRange {
  readonly network: Prefix;
}

/** Backends by which upstream publishes IPv6, and what they need besides the address. */
const IPV6_TYPES: Readonly<Record<string, boolean>> = {
  "vxlan": true,
  "wireguard": true,
  "host-gw": false,
  "extension": false,
};

/** The annotations that tell of `attributes`; `null` for one that is to go. */
export function encodeAnnotations(
  attributes: LeaseAttributes,
  names: AnnotationNames,
  present: KubeNode["annotations"],
): Readonly<Record<string, string | null>> {
  const { backendType, backendData, backendV6Data, publicIp, publicIpv6 } = attributes;
  const text = (data: Json | undefined) => JSON.stringify(data ?? null);
  const overwritten = (family: Family, own: string) => present[names.overwrite[family]] || own;
  const needsData = IPV6_TYPES[backendType];
  const hasIpv4 = needsData !== true || backendData !== undefined;
  const hasIpv6 = needsData !== undefined && publicIpv6 !== undefined &&
    (!needsData || backendV6Data !== undefined);
  return {
    [names.managed]: "true",
    [names.backendType]: backendType,
    [names.data[4]]: hasIpv4 ? text(backendData) : null,
    [names.publicIp[4]]: hasIpv4 ? overwritten(4, String(publicIp ?? "0.0.0.0")) : null,
    [names.data[6]]: hasIpv6 ? text(backendV6Data) : null,
    [names.publicIp[6]]: hasIpv6 ? overwritten(6, String(publicIpv6)) : null,
  };
}

/** What of `wanted` is not there yet; `undefined` if nothing. */
export function missingAnnotations(
  wanted: Readonly<Record<string, string | null>>,
  present: KubeNode["annotations"],
): Readonly<Record<string, string | null>> | undefined {
  const changes = Object.entries(wanted).filter(([name, value]) =>
    (present[name] ?? null) !== value
  );
  return changes.length === 0 ? undefined : Object.fromEntries(changes);
}

/** What the node publishes; `undefined` if nothing, or nothing that can be read. */
export function parseAnnotations(
  node: KubeNode,
  names: AnnotationNames,
): LeaseAttributes | undefined {
  const entry = leaseEntry(node, names);
  if (entry === undefined) return undefined;
  try {
    return parseLeaseValue(entry.value);
  } catch {
    return undefined;
  }
}
