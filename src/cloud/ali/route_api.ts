/**
 * The VPC service as a cloud's routes want it.
 *
 * @module
 */
import type { Prefix } from "../../net/mod.ts";
import type { CloudApiError } from "../routes/cloud_error.ts";
import type {
  Accepted,
  CallOptions,
  CloudRoute,
  EntryState,
  NewRoute,
  RouteApi,
  RouteBatchApi,
  TableListing,
  WriteOptions,
} from "../routes/provider.ts";
import { AliApiError } from "./errors.ts";
import { MAX_BATCH, type RefusedRouteEntry, type VpcClient } from "./vpc_client.ts";
import type { RouteEntry } from "./vpc_replies.ts";
import { WORDS } from "./words.ts";

const STATES: Readonly<Record<string, EntryState>> = { Available: "ready", Modifying: "changing" };

/** Route entries through the VPC service of one region. */
export class AliRoutes implements RouteApi {
  readonly words = WORDS;
  readonly hasMarks = true;
  readonly pageEntries = 100;
  readonly destinationsPerRead = 20;
  readonly defaultQuota = 200;
  /** A VPC serves one write at a time. */
  readonly writesAtOnce = 1;
  readonly batches: RouteBatchApi;
  readonly #vpc: VpcClient;

  constructor(vpc: VpcClient) {
    this.#vpc = vpc;
    this.batches = {
      maxEntries: MAX_BATCH,
      actions: { create: "vpc:CreateRouteEntries", delete: "vpc:DeleteRouteEntries" },
      create: async (routes, options) => {
        const entries = routes.map(({ mark, ...route }) => ({ ...route, name: mark }));
        return inOrder(routes, await vpc.createRouteEntries(entries, options), "Create");
      },
      delete: async (routes, options) => {
        const entries = routes.map(({ routeTableId, entryId = "" }) => ({ routeTableId, entryId }));
        return inOrder(routes, await vpc.deleteRouteEntries(entries, options), "Delete");
      },
    };
  }

  async readTable(routeTableId: string, options: CallOptions): Promise<TableListing> {
    const { entries, count } = await this.#vpc.describeRouteEntryListOnce(
      routeTableId,
      { type: "Custom" },
      options,
    );
    return { entries: entries.map(toCloudRoute), used: count };
  }

  async readOwn(
    routeTableId: string,
    { mark }: { readonly mark: string },
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const filter = { type: "Custom", name: mark } as const;
    const entries = await this.#vpc.describeRouteEntryList(routeTableId, filter, options);
    return entries.filter(({ name }) => name === mark).map(toCloudRoute);
  }

  async read(
    routeTableId: string,
    destination: Prefix,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const filter = { destination };
    return (await this.#vpc.describeRouteEntryList(routeTableId, filter, options))
      .map(toCloudRoute);
  }

  readMany = async (
    routeTableId: string,
    destinations: readonly Prefix[],
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> => {
    const filter = { type: "Custom", destinations } as const;
    const { entries } = await this.#vpc.describeRouteEntryListOnce(routeTableId, filter, options);
    return entries.map(toCloudRoute);
  };

  async count(routeTableId: string, options: CallOptions): Promise<number> {
    return await this.#vpc.countCustomRouteEntries(routeTableId, options);
  }

  async create(
    { mark, ...route }: NewRoute,
    { token, ...options }: WriteOptions & { readonly token: string },
  ): Promise<Accepted> {
    const clientToken = `flanneld-${token}`;
    await this.#vpc.createRouteEntry({ ...route, ...options, name: mark, clientToken });
    return undefined;
  }

  async remove({ entryId = "" }: CloudRoute, options: WriteOptions): Promise<Accepted> {
    await this.#vpc.deleteRouteEntry(entryId, options);
    return undefined;
  }

  repoint = async (
    { entryId = "" }: CloudRoute,
    { instanceId, mark }: { readonly instanceId: string; readonly mark: string },
    options: WriteOptions,
  ): Promise<Accepted> => {
    await this.#vpc.modifyRouteEntry(entryId, { instanceId, name: mark }, options);
    return undefined;
  };

  rename = async (
    { entryId = "" }: CloudRoute,
    mark: string,
    options: WriteOptions,
  ): Promise<Accepted> => {
    await this.#vpc.modifyRouteEntry(entryId, { name: mark }, options);
    return undefined;
  };
}

/** An entry of the service as routes know it. */
function toCloudRoute(entry: RouteEntry): CloudRoute {
  const { nextHops, status, type } = entry;
  const [hop, ...others] = nextHops;
  const single = hop !== undefined && others.length === 0 && hop.type === "instance";
  return {
    routeTableId: entry.routeTableId,
    destination: entry.destination,
    instanceId: single ? hop.id : "",
    entryId: entry.id,
    mark: entry.name,
    state: STATES[status] ?? "pending",
    status,
    isStatic: type === "Custom",
    type,
    managedBy: entry.serviceType,
    hops: nextHops.map((each) => each.id === "" ? each.type : each.id),
  };
}

/** The service names the entries that it refused, within a table by destination or id. */
function inOrder(
  asked: readonly (NewRoute | CloudRoute)[],
  refused: readonly RefusedRouteEntry[],
  verb: "Create" | "Delete",
): readonly (CloudApiError | undefined)[] {
  const errors = new Array<CloudApiError | undefined>(asked.length).fill(undefined);
  for (const each of refused) {
    const at = asked.findIndex((one) => isAbout(each, one));
    if (at < 0) {
      throw new AliApiError({
        action: `vpc:${verb}RouteEntries`,
        message: "it refused an entry that was not asked for",
        reaction: { do: "retry", cause: "busy", budgetSeconds: 600 },
      }, { status: 0, code: "UnexpectedAnswer", outcomeUnknown: true });
    }
    errors[at] = each.error;
  }
  return errors;
}

function isAbout(refused: RefusedRouteEntry, asked: NewRoute | CloudRoute): boolean {
  const entryId = "entryId" in asked ? asked.entryId : undefined;
  if (refused.entryId !== undefined && entryId !== undefined) return refused.entryId === entryId;
  return refused.destination?.equals(asked.destination) === true &&
    (refused.nextHop === "" || refused.nextHop === asked.instanceId);
}
