/**
 * Source/destination checks of interfaces, on for accounts that are new to such routing. See
 * https://www.alibabacloud.com/help/en/ecs/user-guide/source-and-destination-check
 *
 * @module
 */
import type { CallOptions, InterfaceApi, InterfaceInfo } from "../routes/provider.ts";
import { type EcsClient, MAX_INTERFACES_PER_CALL } from "./ecs_client.ts";
import { AliApiError } from "./errors.ts";

const ENI = /^eni-[a-z0-9-]{1,120}$/i;

/** The interfaces of one region, through its ECS service. */
export function interfaceApi(ecs: EcsClient): InterfaceApi {
  return {
    perCall: MAX_INTERFACES_PER_CALL,
    isId: (text) => ENI.test(text),
    read: (ids, options) => readAll(ecs, ids, options),
    setCheck: (id, enabled, options) => ecs.setSourceDestCheck(id, enabled, options),
    denial: (action) => `RAM denies ${action}`,
    remedy: (id) =>
      "Either allow ecs:DescribeNetworkInterfaces and ecs:ModifyNetworkInterfaceAttribute in the " +
      "RAM policy of this host's key or role; or switch it off once in the console (ECS > " +
      `Elastic Network Interfaces > ${id} > Source/Destination Check)`,
  };
}

/** One id that the service does not take spoils the call: half by half, until it is found. */
async function readAll(
  ecs: EcsClient,
  ids: readonly string[],
  options: CallOptions,
): Promise<readonly InterfaceInfo[]> {
  try {
    return await ecs.describeNetworkInterfaces(ids, options);
  } catch (error) {
    if (!(error instanceof AliApiError) || !isAboutInterfaces(error)) throw error;
    if (ids.length === 1) return [];
    const middle = Math.ceil(ids.length / 2);
    const found: InterfaceInfo[] = [];
    for (const half of [ids.slice(0, middle), ids.slice(middle)]) {
      found.push(...await readAll(ecs, half, options));
    }
    return found;
  }
}

/** Whether a call was refused for the ids in it. */
function isAboutInterfaces({ code, reaction }: AliApiError): boolean {
  return reaction.do === "fatal" && /EniId|NetworkInterface|^InvalidParameter/i.test(code);
}
