import { OperatorError } from "../../errors.ts";
import type { Lease } from "../../lease/lease.ts";
import type { Logger } from "../../log.ts";
import type { Address } from "../../net/mod.ts";
import { StateReporter } from "../../util/state_reporter.ts";
import { AliApiError } from "./errors.ts";
import type { RouteTableInfo, VpcClient, VSwitchInfo } from "./client.ts";

/** Options of {@linkcode TableChoice}. */
export interface TableChoiceOptions {
  readonly vpc: VpcClient;
  readonly vpcId: string;
  /** The vSwitch of this instance. */
  readonly vSwitchId: string;
  /** Tables that the operator named; with any, no others are used. */
  readonly configured: readonly string[];
  readonly log: Logger;
  /**
   * For how long it counts as known which vSwitch uses which table; those change rarely, but while
   * a new one is not known, packets that it routes are lost.
   */
  readonly staleMs: number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
}

/** Which tables are to hold this host's entry. */
export interface ChosenTables {
  readonly routeTableIds: readonly string[];
  /** The other tables of the VPC that serve vSwitches. */
  readonly otherTableIds: readonly string[];
}

/** A peer in a vSwitch that is not known yet makes us look sooner, but not more often than this. */
const LOOK_AGAIN_MS = 5 * 60_000;

/**
 * Chooses route tables: the configured ones, or the one bound to this instance's vSwitch and, as
 * peers in other vSwitches look routes up in their own table, each table that a peer's vSwitch is
 * bound to. Never "the first table". Peers are found by their address, so that upstream's leases,
 * which say nothing of tables, count too.
 */
export class TableChoice {
  readonly #options: Required<TableChoiceOptions>;
  #tables: { readonly list: readonly RouteTableInfo[]; readonly at: number } | undefined;
  #vSwitches: { readonly list: readonly VSwitchInfo[]; readonly at: number } | undefined;
  #own: readonly RouteTableInfo[] = [];
  /** Only grows: a peer that comes and goes must not make routes come and go. */
  readonly #further = new Set<string>();
  readonly #looking: StateReporter;

  constructor(options: TableChoiceOptions) {
    this.#options = { now: () => performance.now(), ...options };
    this.#looking = new StateReporter(this.#options.log, {
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
  async resolveOwn(options: { signal: AbortSignal }): Promise<readonly RouteTableInfo[]> {
    const { vpc, vpcId, vSwitchId, configured, log } = this.#options;
    const tables = await this.#listTables(options);
    const usable = tables.filter((table) => table.associateType === "VSwitch");
    const bound = await boundTable(vpc, vSwitchId, usable, options);
    if (configured.length === 0) {
      if (bound !== undefined) return this.#own = [bound];
      throw new OperatorError(
        `Cannot tell which route table vSwitch ${vSwitchId} uses: set RouteTableID to one of ` +
          describeTables(usable),
      );
    }
    const faults: string[] = [];
    const own: RouteTableInfo[] = [];
    for (const id of configured) {
      const table = tables.find((each) => each.id === id);
      if (table === undefined) faults.push(`VPC ${vpcId} has no route table ${id}`);
      else if (table.associateType === "Gateway") faults.push(`${id} is a gateway's route table`);
      else own.push(table);
    }
    if (faults.length > 0) {
      throw new OperatorError(
        `Cannot use RouteTableID: ${faults.join("; ")}; it has ${describeTables(usable)}`,
      );
    }
    if (bound !== undefined && !configured.includes(bound.id)) {
      log.warn(
        `RouteTableID leaves out ${bound.id}, which this instance's vSwitch uses: pods of hosts ` +
          "in that vSwitch cannot reach this host",
        { vswitch: vSwitchId },
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
    options: { signal: AbortSignal },
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
      table.associateType === "VSwitch" && !chosen.includes(table.id)
    );
    return { routeTableIds: chosen, otherTableIds: others.map((table) => table.id) };
  }

  #chosen(): readonly string[] {
    return [...new Set([...this.#own.map((table) => table.id), ...this.#further])];
  }

  async #findFurther(
    addresses: readonly Address[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    const { staleMs } = this.#options;
    if (this.#isStale(this.#tables?.at, staleMs)) await this.#lookAgain(options);
    const tables = (this.#tables?.list ?? []).filter((table) => table.associateType === "VSwitch");
    const known = new Set(tables.map((table) => table.id));
    // A custom table that no vSwitch uses any more decides about no packet.
    const idle = tables.filter((table) => table.type === "Custom" && table.vSwitchIds.length === 0);
    for (const { id } of idle) known.delete(id);
    for (const id of this.#further) if (!known.has(id)) this.#further.delete(id);
    if (tables.length < 2) return;
    const vSwitchOf = (address: Address) =>
      this.#vSwitches?.list.find((vSwitch) => vSwitch.cidr.contains(address));
    const unknown = addresses.some((address) => vSwitchOf(address) === undefined);
    if (
      this.#isStale(this.#vSwitches?.at, staleMs) ||
      (unknown && this.#isStale(this.#vSwitches?.at, LOOK_AGAIN_MS))
    ) {
      await this.#listVSwitches(tables, options);
    }
    const own = new Set(this.#own.map((table) => table.id));
    for (const address of addresses) {
      const vSwitch = vSwitchOf(address);
      if (vSwitch === undefined) continue;
      const table = vSwitch.routeTableId ??
        tables.find((each) => each.vSwitchIds.includes(vSwitch.id))?.id;
      if (table !== undefined && known.has(table) && !own.has(table)) this.#further.add(table);
    }
  }

  /** Tables come and go, and an operator may bind our own vSwitch to another one. */
  async #lookAgain(options: { signal: AbortSignal }): Promise<void> {
    const { vpc, vSwitchId, log } = this.#options;
    const tables = (await this.#listTables(options))
      .filter((table) => table.associateType === "VSwitch");
    const bound = await boundTable(vpc, vSwitchId, tables, options);
    if (bound === undefined || this.#own.some((table) => table.id === bound.id)) return;
    log.info("This instance's vSwitch is bound to another route table now", { table: bound.id });
    this.#own = [bound];
    this.#further.delete(bound.id);
  }

  #isStale(at: number | undefined, afterMs: number): boolean {
    return at === undefined || this.#options.now() - at > afterMs;
  }

  async #listTables(options: { signal: AbortSignal }): Promise<readonly RouteTableInfo[]> {
    const { vpc, vpcId, now } = this.#options;
    const list = (await vpc.describeRouteTableList({ vpcId }, options))
      .filter((table) => table.vpcId === "" || table.vpcId === vpcId);
    this.#tables = { list, at: now() };
    return list;
  }

  async #listVSwitches(
    tables: readonly RouteTableInfo[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    const { vpc, vpcId, now } = this.#options;
    let list: readonly VSwitchInfo[];
    try {
      list = await vpc.describeVSwitches(vpcId, options);
    } catch (error) {
      // The smallest policy has only the call for one vSwitch.
      if (!(error instanceof AliApiError) || !error.denied) throw error;
      const ids = [...new Set(tables.flatMap((table) => table.vSwitchIds))];
      const found: VSwitchInfo[] = [];
      for (const id of ids) found.push(await vpc.describeVSwitchAttributes(id, options));
      list = found;
    }
    this.#vSwitches = { list, at: now() };
  }
}

/** The table bound to a vSwitch; `undefined` if the service leaves that open. */
async function boundTable(
  vpc: VpcClient,
  vSwitchId: string,
  tables: readonly RouteTableInfo[],
  options: { signal: AbortSignal },
): Promise<RouteTableInfo | undefined> {
  const { routeTableId } = await vpc.describeVSwitchAttributes(vSwitchId, options);
  if (routeTableId !== undefined) {
    const table = tables.find((each) => each.id === routeTableId);
    if (table !== undefined) return table;
  }
  const serving = tables.filter((table) => table.vSwitchIds.includes(vSwitchId));
  if (serving.length === 1) return serving[0];
  return serving.length === 0 && tables.length === 1 ? tables[0] : undefined;
}

function describeTables(tables: readonly RouteTableInfo[]): string {
  if (tables.length === 0) return "no route table";
  return tables.map((table) => table.name === "" ? table.id : `${table.id} ("${table.name}")`)
    .join(", ");
}
