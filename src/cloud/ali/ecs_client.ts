/**
 * The calls to the ECS service (2014-05-26): network interfaces and their source/destination checks,
 * on for accounts that are new to such routing. See
 * https://www.alibabacloud.com/help/en/ecs/user-guide/source-and-destination-check
 *
 * @module
 */
import * as v from "valibot";
import type { CallOptions, InterfaceApi, InterfaceInfo } from "../routes/provider.ts";
import { AliApiError } from "./errors.ts";
import { AnyReply, Id, list, OptionalText, PageWatch, Token } from "./replies.ts";
import type { Parameters, Rpc } from "./rpc.ts";

const ENI = /^eni-[a-z0-9-]{1,120}$/i;

const NetworkInterfacesReply = v.object({
  NextToken: Token,
  NetworkInterfaceSets: list(
    "NetworkInterfaceSet",
    v.object({
      NetworkInterfaceId: Id,
      InstanceId: OptionalText,
      VpcId: OptionalText,
      Type: OptionalText,
      SourceDestCheck: v.nullish(v.boolean()),
    }),
  ),
});

/** An instance has some interfaces; a service that pages for ever has told nothing. */
const MAX_PAGES_OF_INSTANCE = 5;

/** The interfaces of one region. */
export class EcsClient implements InterfaceApi {
  /** As many ids as DescribeNetworkInterfaces takes, and no more than it returns on a page. */
  readonly perCall = 100;
  readonly #rpc: Rpc;
  readonly #regionId: string;

  constructor(rpc: Rpc, regionId: string) {
    this.#rpc = rpc;
    this.#regionId = regionId;
  }

  isId(text: string): boolean {
    return ENI.test(text);
  }

  /**
   * One id that the service does not take spoils the call: it is searched for half by half.
   *
   * @throws {RangeError} For more than {@linkcode EcsClient.perCall} ids, or none: the service would
   *   list every interface of the account.
   */
  async read(ids: readonly string[], options: CallOptions): Promise<readonly InterfaceInfo[]> {
    if (ids.length === 0 || ids.length > this.perCall) {
      throw new RangeError(`Cannot describe network interfaces: got ${ids.length} ids`);
    }
    try {
      return await this.#describe(ids, options);
    } catch (error) {
      if (!(error instanceof AliApiError) || !isAboutInterfaces(error)) throw error;
      if (ids.length === 1) return [];
      const middle = Math.ceil(ids.length / 2);
      return [
        ...await this.read(ids.slice(0, middle), options),
        ...await this.read(ids.slice(middle), options),
      ];
    }
  }

  /** Whether the account has the instance in this region, running or not; see `Cloud`. */
  async instanceExists(instanceId: string, options: CallOptions): Promise<boolean> {
    if (instanceId === "") throw new RangeError("Cannot look for an instance without an id");
    let pages = 0;
    for await (const page of this.#pages({ InstanceId: instanceId }, options)) {
      // One that was released has no interface any more.
      if (page.NetworkInterfaceSets.length > 0 || ++pages >= MAX_PAGES_OF_INSTANCE) return true;
    }
    return false;
  }

  async disableCheck(id: string, options: CallOptions): Promise<void> {
    const parameters = {
      RegionId: this.#regionId,
      NetworkInterfaceId: id,
      SourceDestCheck: false,
    };
    await this.#rpc.call("ModifyNetworkInterfaceAttribute", parameters, AnyReply, options);
  }

  denial(action: string): string {
    return `RAM denies ${action}`;
  }

  remedy(id: string): string {
    return "Either allow ecs:DescribeNetworkInterfaces and ecs:ModifyNetworkInterfaceAttribute in " +
      "the RAM policy of this host's key or role; or switch it off once in the console (ECS > " +
      `Elastic Network Interfaces > ${id} > Source/Destination Check)`;
  }

  async #describe(ids: readonly string[], options: CallOptions): Promise<InterfaceInfo[]> {
    const found = new Map<string, InterfaceInfo>();
    const watch = new PageWatch("ecs:DescribeNetworkInterfaces");
    for await (const page of this.#pages({ NetworkInterfaceId: ids }, options)) {
      for (const row of page.NetworkInterfaceSets) {
        if (!ids.includes(row.NetworkInterfaceId)) continue;
        found.set(row.NetworkInterfaceId, {
          id: row.NetworkInterfaceId,
          instanceId: row.InstanceId,
          vpcId: row.VpcId,
          isPrimary: row.Type === "Primary",
          ...(typeof row.SourceDestCheck === "boolean"
            ? { sourceDestCheck: row.SourceDestCheck }
            : {}),
        });
      }
      if (found.size === ids.length) break; // the last page may carry a token, too
      if (page.NextToken !== "") watch.next(found.size, page.NextToken);
    }
    return [...found.values()];
  }

  async *#pages(
    filter: Parameters,
    options: CallOptions,
  ): AsyncGenerator<v.InferOutput<typeof NetworkInterfacesReply>> {
    let token = "";
    do {
      const parameters = {
        RegionId: this.#regionId,
        ...filter,
        MaxResults: this.perCall,
        NextToken: token || undefined,
      };
      const action = "DescribeNetworkInterfaces";
      const reply = await this.#rpc.call(action, parameters, NetworkInterfacesReply, options);
      yield reply;
      token = reply.NextToken;
    } while (token !== "");
  }
}

/** Whether a call was refused for the ids in it. */
function isAboutInterfaces({ code, reaction }: AliApiError): boolean {
  return reaction.do === "fatal" && /EniId|NetworkInterface|^InvalidParameter/i.test(code);
}
