import { ApiError } from "./api_error.ts";
import type { Action, Call } from "./action.ts";
import type { Instance, NetworkInterface } from "./model.ts";

const CREATED_AT = "2024-03-01T08:00:00Z";

/** ECS API 2014-05-26: instances and the source/destination check of their interfaces. */
export const ecsActions: readonly Action[] = [
  { name: "DescribeInstances", regionRequired: true, handle: describeInstances },
  { name: "DescribeNetworkInterfaces", regionRequired: true, handle: describeNetworkInterfaces },
  {
    name: "ModifyNetworkInterfaceAttribute",
    regionRequired: true,
    handle: modifyNetworkInterfaceAttribute,
  },
];

function visibleInterfaces({ cloud, principal, regionId }: Call): NetworkInterface[] {
  return [...cloud.network.interfaces.values()].filter((each) => {
    const vpc = cloud.network.vpc(each.vpcId);
    return vpc.accountId === principal.accountId && vpc.regionId === regionId;
  });
}

function describeNetworkInterfaces(call: Call): Record<string, unknown> {
  const { params } = call;
  const ids = params.texts("NetworkInterfaceId");
  if (ids.length > 100) throw invalid("NetworkInterfaceId");
  const filters: readonly [string, (each: NetworkInterface) => string][] = [
    ["InstanceId", (each) => each.instanceId],
    ["Type", (each) => each.type],
    ["VpcId", (each) => each.vpcId],
    ["VSwitchId", (each) => each.vSwitchId],
    ["PrimaryIpAddress", (each) => each.privateIp],
    ["Status", () => "InUse"],
  ];
  const found = visibleInterfaces(call).filter((each) =>
    (ids.length === 0 || ids.includes(each.id)) &&
    filters.every(([name, read]) => (params.optional(name) ?? read(each)) === read(each))
  );
  const { items, nextToken } = takePage(call, found, { min: 10, max: 500, default: 10 });
  return {
    TotalCount: found.length,
    NextToken: nextToken,
    NetworkInterfaceSets: {
      NetworkInterfaceSet: items.map((each) => describeInterface(call, each)),
    },
  };
}

function describeInterface({ cloud }: Call, each: NetworkInterface): Record<string, unknown> {
  return {
    NetworkInterfaceId: each.id,
    InstanceId: each.instanceId,
    Attachment: { InstanceId: each.instanceId, DeviceIndex: each.type === "Primary" ? 0 : 1 },
    MacAddress: each.mac,
    PrivateIpAddress: each.privateIp,
    PrivateIpSets: { PrivateIpSet: [{ PrivateIpAddress: each.privateIp, Primary: true }] },
    Ipv6Sets: { Ipv6Set: each.ipv6s.map((address) => ({ Ipv6Address: address })) },
    VpcId: each.vpcId,
    VSwitchId: each.vSwitchId,
    ZoneId: cloud.network.vSwitch(each.vSwitchId).zoneId,
    OwnerId: cloud.network.vpc(each.vpcId).accountId,
    Type: each.type,
    Status: "InUse",
    CreationTime: CREATED_AT,
    SourceDestCheck: each.sourceDestCheck,
  };
}

function modifyNetworkInterfaceAttribute(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const id = params.required("NetworkInterfaceId");
  const found = visibleInterfaces(call).find((each) => each.id === id);
  if (!found) {
    throw new ApiError(
      404,
      "InvalidEniId.NotFound",
      "The specified NetworkInterfaceId is not found.",
    );
  }
  const check = params.boolean("SourceDestCheck");
  if (check === undefined) {
    throw new ApiError(400, "MissingParameter", "No attribute to change is given.");
  }
  if (cloud.random.next() < cloud.behaviour.interfaceConflictProbability) {
    throw new ApiError(
      400,
      "InvalidOperation.Conflict",
      "Request was denied due to conflict with a previous request, please try again later.",
    );
  }
  cloud.setSourceDestCheck(found.id, check);
  call.performed();
  return {};
}

function describeInstances(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const ids = readIdList(params.optional("InstanceIds"));
  const visible = new Set(visibleInterfaces(call).map((each) => each.instanceId));
  const found = [...cloud.network.instances.values()].filter((each) =>
    visible.has(each.id) && (ids === undefined || ids.includes(each.id)) &&
    (params.optional("VpcId") ?? each.vpcId) === each.vpcId &&
    (params.optional("VSwitchId") ?? each.vSwitchId) === each.vSwitchId
  );
  const { items, nextToken } = takePage(call, found, { min: 1, max: 100, default: 10 });
  return {
    TotalCount: found.length,
    NextToken: nextToken,
    Instances: { Instance: items.map((each) => describeInstance(call, each)) },
  };
}

function describeInstance({ cloud, regionId }: Call, each: Instance): Record<string, unknown> {
  return {
    InstanceId: each.id,
    InstanceName: each.name,
    HostName: each.name,
    RegionId: regionId,
    ZoneId: cloud.network.vSwitch(each.vSwitchId).zoneId,
    Status: each.status,
    CreationTime: CREATED_AT,
    InstanceNetworkType: "vpc",
    MetadataOptions: { HttpEndpoint: "enabled", HttpTokens: each.httpTokens },
    PublicIpAddress: { IpAddress: each.publicIp === undefined ? [] : [each.publicIp] },
    VpcAttributes: {
      VpcId: each.vpcId,
      VSwitchId: each.vSwitchId,
      PrivateIpAddress: { IpAddress: [each.privateIp] },
    },
    NetworkInterfaces: {
      NetworkInterface: cloud.network.interfacesOf(each.id).map((one) => ({
        NetworkInterfaceId: one.id,
        MacAddress: one.mac,
        PrimaryIpAddress: one.privateIp,
        Type: one.type,
        PrivateIpSets: { PrivateIpSet: [{ PrivateIpAddress: one.privateIp, Primary: true }] },
        Ipv6Sets: { Ipv6Set: one.ipv6s.map((address) => ({ Ipv6Address: address })) },
      })),
    },
  };
}

/** A JSON array of ids in one parameter, as DescribeInstances wants it. */
function readIdList(text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    list = undefined;
  }
  const valid = Array.isArray(list) && list.length <= 100 &&
    list.every((each) => typeof each === "string");
  if (!valid) throw invalid("InstanceIds");
  return list as string[];
}

/** One page by MaxResults and NextToken (which is the place where the next page begins). */
function takePage<T>(
  { params }: Call,
  items: readonly T[],
  range: { min: number; max: number; default: number },
): { items: T[]; nextToken: string } {
  const size = params.integer("MaxResults", { min: range.min, default: range.default });
  if (size > range.max) throw invalid("MaxResults");
  const token = params.optional("NextToken");
  const offset = token === undefined ? 0 : Number(/^page-(\d+)$/.exec(token)?.[1] ?? NaN);
  if (Number.isNaN(offset)) throw invalid("NextToken");
  const end = offset + size;
  return { items: items.slice(offset, end), nextToken: end < items.length ? `page-${end}` : "" };
}

function invalid(name: string): ApiError {
  return new ApiError(400, "InvalidParameter", `The specified parameter ${name} is not valid.`);
}
