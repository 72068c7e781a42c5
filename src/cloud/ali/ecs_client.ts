/**
 * The calls to the ECS service (2014-05-26) that `ali-vpc` makes: what concerns interfaces.
 *
 * @module
 */
import * as v from "valibot";
import type { CallOptions, InterfaceInfo } from "../routes/provider.ts";
import { AnyReply, Id, list, OptionalText, PageWatch, Token } from "./replies.ts";
import type { Rpc } from "./rpc.ts";

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

/** As many ids as DescribeNetworkInterfaces takes, and no more than it answers on a page. */
export const MAX_INTERFACES_PER_CALL = 100;

/** An instance has some interfaces; a service that pages for ever has told nothing. */
const MAX_PAGES_OF_INSTANCE = 5;

/** The ECS service of one region, as far as interfaces go. */
export class EcsClient {
  readonly #rpc: Rpc;
  readonly #regionId: string;

  constructor(rpc: Rpc, regionId: string) {
    this.#rpc = rpc;
    this.#regionId = regionId;
  }

  /**
   * Those interfaces of `ids` that exist, in one call where the service does not part its answer.
   *
   * @throws {RangeError} For more than {@linkcode MAX_INTERFACES_PER_CALL} ids, or none: the
   *   service would list every interface of the account.
   */
  async describeNetworkInterfaces(
    ids: readonly string[],
    { signal }: CallOptions,
  ): Promise<readonly InterfaceInfo[]> {
    if (ids.length === 0 || ids.length > MAX_INTERFACES_PER_CALL) {
      throw new RangeError(`Cannot describe network interfaces: got ${ids.length} ids`);
    }
    const found = new Map<string, InterfaceInfo>();
    const watch = new PageWatch("ecs:DescribeNetworkInterfaces");
    let token = "";
    for (;;) {
      const reply = await this.#rpc.call(
        "DescribeNetworkInterfaces",
        {
          RegionId: this.#regionId,
          NetworkInterfaceId: ids,
          MaxResults: MAX_INTERFACES_PER_CALL,
          NextToken: token === "" ? undefined : token,
        },
        NetworkInterfacesReply,
        { signal },
      );
      for (const row of reply.NetworkInterfaceSets) {
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
      token = reply.NextToken;
      // The last page may carry a token, too.
      if (token === "" || found.size === ids.length) return [...found.values()];
      watch.next(found.size, token);
    }
  }

  /**
   * Whether the account has the instance in this region, running or not: one that was released has
   * no interface any more.
   */
  async instanceExists(instanceId: string, { signal }: CallOptions): Promise<boolean> {
    if (instanceId === "") throw new RangeError("Cannot look for an instance without an id");
    let token = "";
    for (let page = 1;; page++) {
      const reply = await this.#rpc.call(
        "DescribeNetworkInterfaces",
        {
          RegionId: this.#regionId,
          InstanceId: instanceId,
          MaxResults: MAX_INTERFACES_PER_CALL,
          NextToken: token === "" ? undefined : token,
        },
        NetworkInterfacesReply,
        { signal },
      );
      // Whatever is on the page was found by this filter.
      if (reply.NetworkInterfaceSets.length > 0) return true;
      token = reply.NextToken;
      if (token === "") return false;
      if (page >= MAX_PAGES_OF_INSTANCE) return true;
    }
  }

  /** Switches the source/destination check of an interface. */
  async setSourceDestCheck(
    networkInterfaceId: string,
    enabled: boolean,
    { signal }: CallOptions,
  ): Promise<void> {
    await this.#rpc.call(
      "ModifyNetworkInterfaceAttribute",
      {
        RegionId: this.#regionId,
        NetworkInterfaceId: networkInterfaceId,
        SourceDestCheck: enabled,
      },
      AnyReply,
      { signal },
    );
  }
}
