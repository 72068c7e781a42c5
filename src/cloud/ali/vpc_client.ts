/**
 * The calls to the VPC service (2016-04-28): route entries, route tables and vSwitches of one VPC.
 *
 * @module
 */
import type * as v from "valibot";
import type { Prefix } from "../../net/mod.ts";
import { CloudApiError } from "../routes/cloud_error.ts";
import type {
  Accepted,
  CallOptions,
  CloudRoute,
  NewRoute,
  RouteApi,
  RouteBatchApi,
  TableListing,
  WriteOptions,
} from "../routes/provider.ts";
import type { SubnetInfo, TableDirectory, TableInfo } from "../routes/table_choice.ts";
import { AliApiError, oddReply } from "./errors.ts";
import { AnyReply, PageWatch, parseDestination } from "./replies.ts";
import type { Parameters, Rpc } from "./rpc.ts";
import {
  BatchReply,
  CreateReply,
  RouteEntryListReply,
  RouteTableListReply,
  toCloudRoute,
  toSubnet,
  toTable,
  VpcAttributeReply,
  VSwitchAttributesReply,
  VSwitchesReply,
} from "./vpc_replies.ts";
import { WORDS } from "./words.ts";

/** Pages of a list may shift while it changes; so often it is read again. */
const LIST_TRIES = 6;

/** One reading of a list. */
interface Listing {
  readonly entries: readonly CloudRoute[];
  /** Every row's key, also of rows that are no entries for us. */
  readonly keys: string;
  readonly pages: number;
  /** All rows, by the service's own count where it gives one. */
  readonly count: number;
}

/** A VPC of one region. */
export class VpcClient implements RouteApi, TableDirectory {
  readonly words = WORDS;
  readonly hasMarks = true;
  readonly pageEntries = 100;
  readonly destinationsPerRead = 20;
  readonly defaultQuota = 200;
  /** A VPC serves one write at a time. */
  readonly writesAtOnce = 1;
  readonly subnetNoun = "vSwitch";
  readonly #rpc: Rpc;
  readonly #regionId: string;
  readonly #vpcId: string;

  constructor(rpc: Rpc, { regionId, vpcId }: { regionId: string; vpcId: string }) {
    this.#rpc = rpc;
    this.#regionId = regionId;
    this.#vpcId = vpcId;
  }

  /** The VPC's ranges, primary and secondary. */
  async cidrs(options: CallOptions): Promise<readonly Prefix[]> {
    const parameters = { VpcId: this.#vpcId };
    const reply = await this.#call("DescribeVpcAttribute", parameters, VpcAttributeReply, options);
    return [reply.CidrBlock, ...reply.SecondaryCidrBlocks];
  }

  async listTables(options: CallOptions): Promise<readonly TableInfo[]> {
    const rows = await this.#numberedPages("DescribeRouteTableList", async (page) => {
      const parameters = { VpcId: this.#vpcId, ...page };
      const action = "DescribeRouteTableList";
      const reply = await this.#call(action, parameters, RouteTableListReply, options);
      return { total: reply.TotalCount, items: reply.RouterTableList };
    }, (row) => row.RouteTableId);
    return rows.filter(({ VpcId }) => VpcId === "" || VpcId === this.#vpcId).map(toTable);
  }

  /** One by one where the policy denies the list: the smallest has the call for one alone. */
  async listSubnets(
    tables: readonly TableInfo[],
    options: CallOptions,
  ): Promise<readonly SubnetInfo[]> {
    try {
      return await this.#numberedPages("DescribeVSwitches", async (page) => {
        const parameters = { VpcId: this.#vpcId, ...page };
        const reply = await this.#call("DescribeVSwitches", parameters, VSwitchesReply, options);
        return { total: reply.TotalCount, items: reply.VSwitches.map(toSubnet) };
      }, ({ id }) => id);
    } catch (error) {
      if (!(error instanceof CloudApiError) || error.reaction.do !== "denied") throw error;
      const found: SubnetInfo[] = [];
      for (const id of new Set(tables.flatMap(({ subnetIds }) => subnetIds))) {
        found.push(await this.#subnet(id, options));
      }
      return found;
    }
  }

  async tableOf(subnetId: string, options: CallOptions): Promise<string | undefined> {
    return (await this.#subnet(subnetId, options)).routeTableId;
  }

  async readTable(routeTableId: string, options: CallOptions): Promise<TableListing> {
    const { entries, count } = await this.#readOnce(routeTableId, CUSTOM, options);
    return { entries, used: count };
  }

  async readOwn(
    routeTableId: string,
    { mark }: { readonly mark: string },
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const filter = { ...CUSTOM, RouteEntryName: mark };
    const entries = await this.#readWhole(routeTableId, filter, options);
    return entries.filter((entry) => entry.mark === mark);
  }

  /** The static entries that lead to an instance, whosever they are. */
  async readLeadingTo(
    routeTableId: string,
    instanceId: string,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const filter = { ...CUSTOM, NextHopId: instanceId };
    const entries = await this.#readWhole(routeTableId, filter, options);
    return entries.filter(({ hops }) => hops?.includes(instanceId));
  }

  read(
    routeTableId: string,
    destination: Prefix,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    return this.#readWhole(routeTableId, { DestinationCidrBlock: String(destination) }, options);
  }

  async readMany(
    routeTableId: string,
    destinations: readonly Prefix[],
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const filter = { ...CUSTOM, DestCidrBlockList: destinations.map(String) };
    return (await this.#readOnce(routeTableId, filter, options)).entries;
  }

  async count(routeTableId: string, options: CallOptions): Promise<number> {
    const parameters = { RouteTableId: routeTableId, ...CUSTOM, MaxResult: 1 };
    const reply = await this.#call(LIST, parameters, RouteEntryListReply, options);
    return reply.TotalCount ?? (await this.#readWhole(routeTableId, CUSTOM, options)).length;
  }

  /** Success means accepted, not yet Available. */
  create(route: NewRoute, { token, ...options }: WriteOptions & { readonly token: string }) {
    return this.#create(route, { ClientToken: `flanneld-${token}` }, options);
  }

  /** Asks whether the entry could be created, and creates nothing; the reply is an error, too. */
  tryCreate(route: NewRoute, options: CallOptions): Promise<Accepted> {
    return this.#create(route, { DryRun: true }, options);
  }

  remove({ entryId }: CloudRoute, options: WriteOptions): Promise<Accepted> {
    return this.#write("DeleteRouteEntry", { RouteEntryId: entryId }, options);
  }

  repoint(
    { entryId }: CloudRoute,
    { instanceId, mark }: { readonly instanceId: string; readonly mark: string },
    options: WriteOptions,
  ): Promise<Accepted> {
    return this.#write("ModifyRouteEntry", {
      RouteEntryId: entryId,
      NewNextHopType: "Instance",
      NewNextHopId: instanceId,
      RouteEntryName: mark,
    }, options);
  }

  rename({ entryId }: CloudRoute, mark: string, options: WriteOptions): Promise<Accepted> {
    return this.#write(
      "ModifyRouteEntry",
      { RouteEntryId: entryId, RouteEntryName: mark },
      options,
    );
  }

  /** There is no client token: after an unknown outcome, look before anything is repeated. */
  readonly batches: RouteBatchApi = {
    maxEntries: 50,
    actions: { create: "vpc:CreateRouteEntries", delete: "vpc:DeleteRouteEntries" },
    create: (routes, options) => {
      const records = routes.map(({ routeTableId, destination, instanceId, mark }) => ({
        RouteTableId: routeTableId,
        DstCidrBlock: String(destination),
        NextHopType: "Instance",
        NextHop: instanceId,
        Name: mark,
      }));
      return this.#batch("CreateRouteEntries", records, routes, options);
    },
    delete: (entries, options) => {
      const records = entries.map(({ routeTableId, entryId = "" }) => ({
        RouteTableId: routeTableId,
        RouteEntryId: entryId,
      }));
      return this.#batch("DeleteRouteEntries", records, entries, options);
    },
  };

  /** Sends a batch, and puts the refusals into the order of `asked`. */
  async #batch(
    action: string,
    records: readonly Readonly<Record<string, string>>[],
    asked: readonly (NewRoute | CloudRoute)[],
    options: WriteOptions,
  ): Promise<readonly (CloudApiError | undefined)[]> {
    const reply = await this.#call(action, { RouteEntries: records }, BatchReply, options);
    const rows = reply.FailedRouteEntries;
    const odd = (message: string) =>
      oddReply({ action: `vpc:${action}`, message }, "UnexpectedAnswer", { outcomeUnknown: true });
    if ((reply.FailedCount ?? rows.length) !== rows.length) {
      throw odd(`it refused ${reply.FailedCount} entries and names ${rows.length}`);
    }
    const errors = new Array<CloudApiError | undefined>(asked.length).fill(undefined);
    for (const row of rows) {
      const at = asked.findIndex((one) => isAbout(row, one));
      if (at < 0) throw odd("it refused an entry that was not asked for");
      errors[at] = new AliApiError(
        { action: `vpc:${action}`, message: row.FailedMessage },
        { status: 200, code: row.FailedCode },
      );
    }
    return errors;
  }

  async #create(
    { routeTableId, destination, instanceId, mark }: NewRoute,
    how: Parameters,
    options: WriteOptions,
  ): Promise<Accepted> {
    await this.#call(
      "CreateRouteEntry",
      {
        RouteTableId: routeTableId,
        DestinationCidrBlock: String(destination),
        NextHopType: "Instance",
        NextHopId: instanceId,
        RouteEntryName: mark,
        ...how,
      },
      CreateReply,
      options,
    );
    return undefined;
  }

  async #write(action: string, parameters: Parameters, options: WriteOptions): Promise<Accepted> {
    await this.#call(action, parameters, AnyReply, options);
    return undefined;
  }

  async #subnet(id: string, options: CallOptions): Promise<SubnetInfo> {
    const action = "DescribeVSwitchAttributes";
    return toSubnet(await this.#call(action, { VSwitchId: id }, VSwitchAttributesReply, options));
  }

  #call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Parameters,
    schema: Schema,
    options: WriteOptions,
  ): Promise<v.InferOutput<Schema>> {
    return this.#rpc.call(action, { RegionId: this.#regionId, ...parameters }, schema, options);
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

  /**
   * The entries of a table that `filter` lets through, complete: read again from the start if its
   * pages shifted or its token expired. Entries whose destination is a prefix list are left out.
   * Filters are conditions on the service's side only; the caller checks what it relies on.
   */
  async #readWhole(
    routeTableId: string,
    filter: Parameters,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    let before: string | undefined;
    for (let tries = 1; tries <= LIST_TRIES; tries++) {
      const listing = await this.#tokenPages(routeTableId, filter, options);
      if (listing === undefined) continue;
      // One page is one moment. Of several, an entry may have slipped from a page not yet read to
      // one already read, and no count tells: two readings in a row must agree.
      if (listing.pages === 1 || listing.keys === before) return listing.entries;
      before = listing.keys;
    }
    throw unstable(routeTableId);
  }

  /**
   * The same, read once: of several pages, an entry may be missing that slipped from a page not
   * yet read to one already read. The count includes prefix lists.
   */
  async #readOnce(
    routeTableId: string,
    filter: Parameters,
    options: CallOptions,
  ): Promise<Listing> {
    for (let tries = 1; tries <= LIST_TRIES; tries++) {
      const listing = await this.#tokenPages(routeTableId, filter, options);
      if (listing !== undefined) return listing;
    }
    throw unstable(routeTableId);
  }

  /** Pages by token; `undefined` if the token expired on the way. */
  async #tokenPages(
    routeTableId: string,
    filter: Parameters,
    options: CallOptions,
  ): Promise<Listing | undefined> {
    const rows = new Map<string, CloudRoute | undefined>();
    const watch = new PageWatch(`vpc:${LIST}`);
    for (let page = 1, token = "";; page++) {
      let reply;
      try {
        reply = await this.#call(
          LIST,
          {
            RouteTableId: routeTableId,
            ...filter,
            MaxResult: this.pageEntries,
            NextToken: token || undefined,
          },
          RouteEntryListReply,
          options,
        );
      } catch (error) {
        const hasExpired = error instanceof AliApiError && /NextToken/i.test(error.code);
        if (hasExpired && page > 1) return undefined;
        throw error;
      }
      for (const row of reply.RouteEntrys) {
        const key = row.RouteEntryId || `${row.Type} ${row.DestinationCidrBlock}`;
        rows.set(key, toCloudRoute(row, routeTableId));
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
}

const LIST = "DescribeRouteEntryList";
/** Entries that somebody wrote, and that count against the quota. */
const CUSTOM = { RouteEntryType: "Custom" };

function unstable(routeTableId: string): AliApiError {
  return new AliApiError({
    action: `vpc:${LIST}`,
    message: `route table ${routeTableId} kept changing while it was read`,
    reaction: { do: "retry", cause: "changing", budgetSeconds: 600 },
  }, { status: 0, code: "ListChanged" });
}

/** Whether a row of a batch's reply is about an entry of it: by id, or by destination. */
function isAbout(
  row: v.InferOutput<typeof BatchReply>["FailedRouteEntries"][number],
  asked: NewRoute | CloudRoute,
): boolean {
  const entryId = "entryId" in asked ? asked.entryId : undefined;
  if (row.RouteEntryId !== "" && entryId !== undefined) return row.RouteEntryId === entryId;
  return parseDestination(row.DstCidrBlock)?.equals(asked.destination) === true &&
    (row.NextHop === "" || row.NextHop === asked.instanceId);
}
