/**
 * The calls to the VPC service (2016-04-28) that `ali-vpc` makes, typed: requests as the API wants
 * them, replies checked field by field. Names follow the API, with its spellings inside.
 *
 * @module
 */
import type * as v from "valibot";
import type { Prefix } from "../../net/mod.ts";
import type { WriteOptions } from "../routes/provider.ts";
import { AliApiError } from "./errors.ts";
import { AnyReply, PageWatch, parseDestination } from "./replies.ts";
import type { Rpc } from "./rpc.ts";
import {
  BatchReply,
  CreateReply,
  type RouteEntry,
  RouteEntryListReply,
  type RouteTableInfo,
  RouteTableListReply,
  toVSwitch,
  VpcAttributeReply,
  type VpcInfo,
  VSwitchAttributesReply,
  VSwitchesReply,
  type VSwitchInfo,
} from "./vpc_replies.ts";

/** What entries to list; all given conditions hold together. */
export interface RouteEntryFilter {
  readonly destination?: Prefix;
  /** Up to 20. */
  readonly destinations?: readonly Prefix[];
  readonly name?: string;
  readonly nextHopId?: string;
  readonly type?: "Custom" | "System";
}

/** Create, with the token that makes its repetition harmless. */
export interface CreateRouteEntryOptions extends WriteOptions {
  readonly routeTableId: string;
  readonly destination: Prefix;
  readonly instanceId: string;
  readonly name: string;
  /** Up to 64 ASCII characters; the same one for every try of one logical create. */
  readonly clientToken?: string;
  readonly dryRun?: boolean;
}

/** An entry to create in a batch. */
export interface NewRouteEntry {
  readonly routeTableId: string;
  readonly destination: Prefix;
  readonly instanceId: string;
  readonly name: string;
}

/** An entry of a batch that the service refused, while it took the others. */
export interface RefusedRouteEntry {
  readonly destination?: Prefix;
  /** Empty where the service does not say. */
  readonly nextHop: string;
  readonly entryId?: string;
  readonly error: AliApiError;
}

/** The most entries that one batch may hold. */
export const MAX_BATCH = 50;

/** Pages of a list may shift while it changes; so often it is read again. */
const LIST_TRIES = 6;

/** One reading of a list. */
interface Listing {
  readonly entries: readonly RouteEntry[];
  /** Every row's key, also of rows that are no entries for us. */
  readonly keys: string;
  readonly pages: number;
  /** All rows, by the service's own count where it gives one. */
  readonly count: number;
}

/** The VPC service of one region. */
export class VpcClient {
  readonly #rpc: Rpc;
  readonly #regionId: string;

  constructor(rpc: Rpc, regionId: string) {
    this.#rpc = rpc;
    this.#regionId = regionId;
  }

  /** The VPC's ranges. An unknown id is an error of the service. */
  async describeVpcAttribute(vpcId: string, options: WriteOptions): Promise<VpcInfo> {
    const reply = await this.#call(
      "DescribeVpcAttribute",
      { VpcId: vpcId },
      VpcAttributeReply,
      options,
    );
    return {
      id: reply.VpcId,
      cidrs: [reply.CidrBlock, ...reply.SecondaryCidrBlocks],
    };
  }

  async describeVSwitchAttributes(
    vSwitchId: string,
    options: WriteOptions,
  ): Promise<VSwitchInfo & { readonly vpcId: string }> {
    const reply = await this.#call(
      "DescribeVSwitchAttributes",
      { VSwitchId: vSwitchId },
      VSwitchAttributesReply,
      options,
    );
    return { ...toVSwitch(reply), vpcId: reply.VpcId };
  }

  /** Every vSwitch of the VPC. */
  async describeVSwitches(vpcId: string, options: WriteOptions): Promise<readonly VSwitchInfo[]> {
    return await this.#numberedPages("DescribeVSwitches", async (page) => {
      const reply = await this.#call(
        "DescribeVSwitches",
        { VpcId: vpcId, ...page },
        VSwitchesReply,
        options,
      );
      return { total: reply.TotalCount, items: reply.VSwitches.map(toVSwitch) };
    }, (vSwitch) => vSwitch.id);
  }

  /** Route tables of a VPC, or one by its id; empty for an unknown id. */
  async describeRouteTableList(
    filter: { readonly vpcId?: string; readonly routeTableId?: string },
    options: WriteOptions,
  ): Promise<readonly RouteTableInfo[]> {
    return await this.#numberedPages("DescribeRouteTableList", async (page) => {
      const reply = await this.#call(
        "DescribeRouteTableList",
        { VpcId: filter.vpcId, RouteTableId: filter.routeTableId, ...page },
        RouteTableListReply,
        options,
      );
      return {
        total: reply.TotalCount,
        items: reply.RouterTableList.map((row): RouteTableInfo => ({
          id: row.RouteTableId,
          name: row.RouteTableName,
          vpcId: row.VpcId,
          type: row.RouteTableType,
          associateType: row.AssociateType.toLowerCase() === "gateway" ? "Gateway" : "VSwitch",
          vSwitchIds: row.VSwitchIds,
        })),
      };
    }, (table) => table.id);
  }

  /**
   * The entries of a table that `filter` lets through, complete: read again from the start if its
   * pages shifted or its token expired. Entries whose destination is a prefix list are left out.
   * Filters are conditions on the service's side only; the caller checks what it relies on.
   */
  async describeRouteEntryList(
    routeTableId: string,
    filter: RouteEntryFilter,
    options: WriteOptions,
  ): Promise<readonly RouteEntry[]> {
    let before: string | undefined;
    for (let tries = 1; tries <= LIST_TRIES; tries++) {
      const listing = await this.#tokenPages(routeTableId, filter, options);
      if (listing === undefined) continue;
      // One page is one moment. Of several, an entry may have slipped from a page not yet read to
      // one already read, and no count tells: two readings in a row must agree.
      if (listing.pages === 1 || listing.keys === before) return listing.entries;
      before = listing.keys;
    }
    throw this.#unstable("DescribeRouteEntryList", `route table ${routeTableId}`);
  }

  /**
   * The same, read once: of several pages, an entry may be missing that slipped from a page not
   * yet read to one already read. `count` is the number that the service says, with prefix lists.
   */
  async describeRouteEntryListOnce(
    routeTableId: string,
    filter: RouteEntryFilter,
    options: WriteOptions,
  ): Promise<{ readonly entries: readonly RouteEntry[]; readonly count: number }> {
    for (let tries = 1; tries <= LIST_TRIES; tries++) {
      const listing = await this.#tokenPages(routeTableId, filter, options);
      if (listing !== undefined) return { entries: listing.entries, count: listing.count };
    }
    throw this.#unstable("DescribeRouteEntryList", `route table ${routeTableId}`);
  }

  /** How many entries count against the table's quota. */
  async countCustomRouteEntries(routeTableId: string, options: WriteOptions): Promise<number> {
    const reply = await this.#call(
      "DescribeRouteEntryList",
      { RouteTableId: routeTableId, RouteEntryType: "Custom", MaxResult: 1 },
      RouteEntryListReply,
      options,
    );
    if (typeof reply.TotalCount === "number") return reply.TotalCount;
    return (await this.describeRouteEntryList(routeTableId, { type: "Custom" }, options)).length;
  }

  /** Asks for an entry that leads to an instance. Success means accepted, not yet Available. */
  async createRouteEntry(options: CreateRouteEntryOptions): Promise<void> {
    await this.#call(
      "CreateRouteEntry",
      {
        RouteTableId: options.routeTableId,
        DestinationCidrBlock: options.destination.toString(),
        NextHopType: "Instance",
        NextHopId: options.instanceId,
        RouteEntryName: options.name,
        ClientToken: options.clientToken,
        DryRun: options.dryRun,
      },
      CreateReply,
      options,
    );
  }

  /** Asks to re-point an entry to an instance, to rename it, or both, without a gap. */
  async modifyRouteEntry(
    entryId: string,
    change: { readonly instanceId?: string; readonly name?: string },
    options: WriteOptions,
  ): Promise<void> {
    await this.#call(
      "ModifyRouteEntry",
      {
        RouteEntryId: entryId,
        NewNextHopType: change.instanceId === undefined ? undefined : "Instance",
        NewNextHopId: change.instanceId,
        RouteEntryName: change.name,
      },
      AnyReply,
      options,
    );
  }

  /** Asks to delete an entry. */
  async deleteRouteEntry(entryId: string, options: WriteOptions): Promise<void> {
    await this.#call("DeleteRouteEntry", { RouteEntryId: entryId }, AnyReply, options);
  }

  /**
   * Asks for up to {@linkcode MAX_BATCH} entries that lead to instances. The service takes those
   * it can and returns the others. There is no client token: after an unknown outcome, look
   * before anything is repeated.
   */
  createRouteEntries(
    entries: readonly NewRouteEntry[],
    options: WriteOptions,
  ): Promise<readonly RefusedRouteEntry[]> {
    const records = entries.map((entry) => ({
      RouteTableId: entry.routeTableId,
      DstCidrBlock: entry.destination.toString(),
      NextHopType: "Instance",
      NextHop: entry.instanceId,
      Name: entry.name,
    }));
    return this.#batch("CreateRouteEntries", records, options);
  }

  /** Asks to delete up to {@linkcode MAX_BATCH} entries; returns those that were refused. */
  deleteRouteEntries(
    entries: readonly { readonly routeTableId: string; readonly entryId: string }[],
    options: WriteOptions,
  ): Promise<readonly RefusedRouteEntry[]> {
    const records = entries.map(({ routeTableId, entryId }) => ({
      RouteTableId: routeTableId,
      RouteEntryId: entryId,
    }));
    return this.#batch("DeleteRouteEntries", records, options);
  }

  async #batch(
    action: string,
    records: readonly Readonly<Record<string, string>>[],
    options: WriteOptions,
  ): Promise<readonly RefusedRouteEntry[]> {
    const reply = await this.#call(action, { RouteEntries: records }, BatchReply, options);
    const rows = reply.FailedRouteEntries;
    const context = { action: `vpc:${action}` };
    if ((reply.FailedCount ?? rows.length) !== rows.length) {
      throw new AliApiError({
        ...context,
        message: `it refused ${reply.FailedCount} entries and names ${rows.length}`,
        reaction: { do: "retry", cause: "busy", budgetSeconds: 600 },
      }, { status: 0, code: "UnexpectedAnswer", outcomeUnknown: true });
    }
    return rows.map((row) => {
      const destination = parseDestination(row.DstCidrBlock);
      return {
        ...(destination === undefined ? {} : { destination }),
        nextHop: row.NextHop,
        ...(row.RouteEntryId === "" ? {} : { entryId: row.RouteEntryId }),
        error: new AliApiError({ ...context, message: row.FailedMessage }, {
          status: 200,
          code: row.FailedCode,
        }),
      };
    });
  }

  #call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Parameters<Rpc["call"]>[1],
    schema: Schema,
    { signal, beforeSend }: WriteOptions,
  ): Promise<v.InferOutput<Schema>> {
    return this.#rpc.call(action, { RegionId: this.#regionId, ...parameters }, schema, {
      signal,
      ...(beforeSend === undefined ? {} : { beforeSend }),
    });
  }

  /** Pages by number and `TotalCount`. */
  async #numberedPages<Item>(
    action: string,
    read: (page: { PageNumber: number; PageSize: number }) => Promise<
      { total: number; items: readonly Item[] }
    >,
    key: (item: Item) => string,
  ): Promise<readonly Item[]> {
    const found = new Map<string, Item>();
    const watch = new PageWatch(`vpc:${action}`);
    for (let PageNumber = 1, seen = 0;; PageNumber++) {
      const { total, items } = await read({ PageNumber, PageSize: 50 });
      for (const item of items) found.set(key(item), item);
      seen += items.length;
      if (items.length === 0 || seen >= total) return [...found.values()];
      watch.next(found.size);
    }
  }

  /** Pages by token; `undefined` if the token expired on the way. */
  async #tokenPages(
    routeTableId: string,
    filter: RouteEntryFilter,
    options: WriteOptions,
  ): Promise<Listing | undefined> {
    const rows = new Map<string, RouteEntry | undefined>();
    const watch = new PageWatch("vpc:DescribeRouteEntryList");
    let token = "";
    for (let page = 1;; page++) {
      let reply;
      try {
        reply = await this.#call(
          "DescribeRouteEntryList",
          {
            RouteTableId: routeTableId,
            RouteEntryType: filter.type,
            RouteEntryName: filter.name,
            DestinationCidrBlock: filter.destination?.toString(),
            DestCidrBlockList: filter.destinations?.map(String),
            NextHopId: filter.nextHopId,
            MaxResult: 100,
            NextToken: token === "" ? undefined : token,
          },
          RouteEntryListReply,
          options,
        );
      } catch (error) {
        if (error instanceof AliApiError && /NextToken/i.test(error.code) && page > 1) {
          return undefined;
        }
        throw error;
      }
      for (const row of reply.RouteEntrys) {
        const destination = parseDestination(row.DestinationCidrBlock);
        const key = row.RouteEntryId || `${row.Type} ${row.DestinationCidrBlock}`;
        rows.set(
          key,
          destination && {
            id: row.RouteEntryId,
            routeTableId,
            destination,
            status: row.Status,
            type: row.Type,
            name: row.RouteEntryName,
            serviceType: row.ServiceType,
            nextHops: row.NextHops.map((hop) => ({
              type: hop.NextHopType.toLowerCase(),
              id: hop.NextHopId,
            })),
          },
        );
      }
      token = reply.NextToken;
      if (token === "") {
        return {
          entries: [...rows.values()].filter((entry) => entry !== undefined),
          keys: [...rows.keys()].sort().join(),
          pages: page,
          count: Math.max(reply.TotalCount ?? 0, rows.size),
        };
      }
      watch.next(rows.size, token);
    }
  }

  #unstable(action: string, what: string): AliApiError {
    return new AliApiError({
      action: `vpc:${action}`,
      message: `${what} kept changing while it was read`,
      reaction: { do: "retry", cause: "changing", budgetSeconds: 600 },
    }, { status: 0, code: "ListChanged" });
  }
}
