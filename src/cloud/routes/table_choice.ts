/** Which route tables are to hold entries. @module */
import { OperatorError } from "../../errors.ts";
import type { Lease } from "../../lease/lease.ts";
import type { Logger } from "../../log.ts";
import type { Address, Prefix } from "../../net/mod.ts";
import { Outage } from "../../status/problems.ts";
import type { CallOptions, ChosenTables } from "./provider.ts";

/** A route table, without its entries. */
export interface TableInfo {
  readonly id: string;
  readonly name: string;
  /** Whether it decides about packets of instances, and not those of a gateway. */
  readonly servesInstances: boolean;
  /** Whether subnets use it that are bound to no other. */
  readonly isMain: boolean;
  /** The cloud's subnets that are bound to it. */
  readonly subnetIds: readonly string[];
}

/** A subnet of the cloud. */
export interface SubnetInfo {
  readonly id: string;
  readonly cidr: Prefix;
  /** The table that it uses, if the cloud says. */
  readonly routeTableId?: string;
}

export interface TableDirectory {
  /** What messages call a subnet of the cloud. */
  readonly subnetNoun: string;
  /** Every table of the instance's network. */
  listTables(options: CallOptions): Promise<readonly TableInfo[]>;
  /** The subnets of the network, or those that some table is bound to. */
  listSubnets(
    tables: readonly TableInfo[],
    options: CallOptions,
  ): Promise<readonly SubnetInfo[]>;
  /** The table that a subnet uses, if the cloud says. */
  tableOf(subnetId: string, options: CallOptions): Promise<string | undefined>;
}

export interface TableChoiceOptions {
  readonly directory: TableDirectory;
  readonly vpcId: string;
  /** The subnet of this instance. */
  readonly subnetId: string;
  /** Tables that the operator named; with any, no others are used. */
  readonly configured: readonly string[];
  readonly log: Logger;
  /**
   * For how long it counts as known which subnet uses which table; those change rarely, but while
   * a new one is not known, packets that it routes are lost.
   */
  readonly staleMs: number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
}

/** A peer in a subnet that is not known yet makes us look sooner, but not more often than this. */
const LOOK_AGAIN_MS = 5 * 60_000;

/**
 * Chooses route tables: the configured ones, or the one bound to this instance's subnet and, as
 * peers in other subnets use their own table, each that a peer's subnet is bound to. Peers are
 * found by their address, so that upstream's leases, which say nothing of tables, count too.
 */
export class TableChoice {
  readonly #options: Required<TableChoiceOptions>;
  #tables: { readonly list: readonly TableInfo[]; readonly at: number } | undefined;
  #subnets: { readonly list: readonly SubnetInfo[]; readonly at: number } | undefined;
  #own: readonly TableInfo[] = [];
  /** Only grows: a peer that comes and goes must not make routes come and go. */
  readonly #further = new Set<string>();
  readonly #looking: Outage;

  constructor(options: TableChoiceOptions) {
    this.#options = { now: () => performance.now(), ...options };
    this.#looking = new Outage(this.#options.log, {
      code: "look-failed",
      object: "route tables of peers",
      failed: "Cannot find out which route tables peers use, and keeps to the known ones",
      recovered: "Could find out which route tables peers use",
      now: this.#options.now,
    });
  }

  /**
   * The tables this host needs for itself; to be called before {@linkcode TableChoice.forPeers}.
   *
   * @throws {OperatorError} If a configured table is none of this VPC, or none is clearly right.
   */
  async resolveOwn(options: CallOptions): Promise<readonly TableInfo[]> {
    const { directory: { subnetNoun }, vpcId, subnetId, configured, log } = this.#options;
    const tables = await this.#listTables(options);
    const usable = tables.filter((table) => table.servesInstances);
    const bound = await this.#boundTable(usable, options);
    if (configured.length === 0) {
      if (bound !== undefined) return this.#own = [bound];
      throw new OperatorError(
        `Cannot tell which route table ${subnetNoun} ${subnetId} uses: set RouteTableID to one of ` +
          describeTables(usable),
      );
    }
    const faults: string[] = [];
    const own: TableInfo[] = [];
    for (const id of configured) {
      const table = tables.find((each) => each.id === id);
      if (table === undefined) faults.push(`VPC ${vpcId} has no route table ${id}`);
      else if (!table.servesInstances) faults.push(`${id} is a gateway's route table`);
      else own.push(table);
    }
    if (faults.length > 0) {
      throw new OperatorError(
        `Cannot use RouteTableID: ${faults.join("; ")}; it has ${describeTables(usable)}`,
      );
    }
    if (bound !== undefined && !configured.includes(bound.id)) {
      log.warn(
        `RouteTableID leaves out ${bound.id}, which this instance's ${subnetNoun} uses: pods of ` +
          `hosts in that ${subnetNoun} cannot reach this host`,
        { [subnetNoun.toLowerCase()]: subnetId },
      );
    }
    return this.#own = own;
  }

  /**
   * The tables for our entry when these are the leases of other hosts. No calls are made while the
   * VPC has a single table; what cannot be found out now leaves the choice as it was.
   */
  async forPeers(
    peers: readonly Lease[],
    options: CallOptions,
  ): Promise<ChosenTables> {
    if (this.#options.configured.length === 0) {
      try {
        const addresses = peers.map(({ attributes }) => attributes.publicIp)
          .filter((address) => address !== undefined);
        await this.#findFurther(addresses, options);
        this.#looking.working();
      } catch (error) {
        options.signal.throwIfAborted();
        this.#looking.failing(error);
        // Without knowing them all, none may be taken for stale.
        return { routeTableIds: this.#chosen(), otherTableIds: [] };
      }
    }
    const chosen = this.#chosen();
    const others = (this.#tables?.list ?? []).filter((table) =>
      table.servesInstances && !chosen.includes(table.id)
    );
    return { routeTableIds: chosen, otherTableIds: others.map((table) => table.id) };
  }

  #chosen(): readonly string[] {
    return [...new Set([...this.#own.map((table) => table.id), ...this.#further])];
  }

  async #findFurther(
    addresses: readonly Address[],
    options: CallOptions,
  ): Promise<void> {
    const { staleMs } = this.#options;
    if (this.#isStale(this.#tables?.at, staleMs)) await this.#lookAgain(options);
    const tables = (this.#tables?.list ?? []).filter((table) => table.servesInstances);
    const known = new Set(tables.map((table) => table.id));
    // A table that no subnet uses any more decides about no packet.
    const idle = tables.filter((table) => !table.isMain && table.subnetIds.length === 0);
    for (const { id } of idle) known.delete(id);
    for (const id of this.#further) if (!known.has(id)) this.#further.delete(id);
    if (tables.length < 2) return;
    const subnetOf = (address: Address) =>
      this.#subnets?.list.find((subnet) => subnet.cidr.contains(address));
    const unknown = addresses.some((address) => subnetOf(address) === undefined);
    if (
      this.#isStale(this.#subnets?.at, staleMs) ||
      (unknown && this.#isStale(this.#subnets?.at, LOOK_AGAIN_MS))
    ) {
      const list = await this.#options.directory.listSubnets(tables, options);
      this.#subnets = { list, at: this.#options.now() };
    }
    const own = new Set(this.#own.map((table) => table.id));
    for (const address of addresses) {
      const subnet = subnetOf(address);
      if (subnet === undefined) continue;
      const table = subnet.routeTableId ??
        tables.find((each) => each.subnetIds.includes(subnet.id))?.id;
      if (table !== undefined && known.has(table) && !own.has(table)) this.#further.add(table);
    }
  }

  /** Tables come and go, and an operator may bind our own subnet to another one. */
  async #lookAgain(options: CallOptions): Promise<void> {
    const { directory: { subnetNoun }, log } = this.#options;
    const tables = (await this.#listTables(options)).filter((table) => table.servesInstances);
    const bound = await this.#boundTable(tables, options);
    if (bound === undefined || this.#own.some((table) => table.id === bound.id)) return;
    log.info(`This instance's ${subnetNoun} is bound to another route table now`, {
      table: bound.id,
    });
    this.#own = [bound];
    this.#further.delete(bound.id);
  }

  #isStale(at: number | undefined, afterMs: number): boolean {
    return at === undefined || this.#options.now() - at > afterMs;
  }

  async #listTables(options: CallOptions): Promise<readonly TableInfo[]> {
    const list = await this.#options.directory.listTables(options);
    this.#tables = { list, at: this.#options.now() };
    return list;
  }

  /** The table bound to this instance's subnet; `undefined` if the cloud leaves that open. */
  async #boundTable(
    tables: readonly TableInfo[],
    options: CallOptions,
  ): Promise<TableInfo | undefined> {
    const { directory, subnetId } = this.#options;
    const id = await directory.tableOf(subnetId, options);
    const table = tables.find((each) => each.id === id);
    if (table !== undefined) return table;
    const serving = tables.filter((each) => each.subnetIds.includes(subnetId));
    if (serving.length === 1) return serving[0];
    return serving.length === 0 && tables.length === 1 ? tables[0] : undefined;
  }
}

function describeTables(tables: readonly TableInfo[]): string {
  if (tables.length === 0) return "no route table";
  return tables.map((table) => table.name === "" ? table.id : `${table.id} ("${table.name}")`)
    .join(", ");
}
