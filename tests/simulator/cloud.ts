import { Prefix } from "../../src/net/mod.ts";
import { ClientTokens } from "./client_tokens.ts";
import {
  type Behaviour,
  type BehaviourConfig,
  behaviourConfig,
  type CloudConfig,
  cloudConfig,
  type FaultConfig,
  type InstanceConfig,
  parseConfig,
  type RouteEntryConfig,
} from "./config.ts";
import { Credentials } from "./credentials.ts";
import { FaultPlan } from "./faults.ts";
import type {
  CloudSnapshot,
  ForwardingEntry,
  Instance,
  NextHop,
  RequestRecord,
  RouteEntry,
  RouteTable,
} from "./model.ts";
import { Network } from "./network.ts";
import { SeededRandom } from "./random.ts";
import { SERVICE_RANGE } from "./route_rules.ts";
import { RouteStore } from "./route_store.ts";
import { Throttle } from "./throttle.ts";

/** A simulation that never ends must not eat the machine: older records are dropped. */
const MAX_RECORDS = 200_000;

/** Names one route entry by its place. */
export interface RoutePlace {
  readonly routeTableId: string;
  /** CIDR. */
  readonly destination: string;
}

/** Options of {@linkcode Cloud}. */
export interface CloudOptions {
  /** The clock: milliseconds since the epoch. @default {Date.now} */
  readonly nowMs?: () => number;
}

/**
 * The simulated cloud: all its state, and what an operator does to it in the console. It does
 * nothing by itself: changes that take time are carried out by {@linkcode Cloud.settle}, which
 * every request and every snapshot calls, and which is due at {@linkcode Cloud.nextDueAtMs}.
 *
 * Every operator action takes effect at once and takes no notice of locks, as the service's own
 * machinery would not.
 */
export class Cloud {
  readonly network: Network;
  readonly routes: RouteStore;
  readonly credentials: Credentials;
  readonly faults: FaultPlan;
  readonly throttle = new Throttle();
  readonly clientTokens = new ClientTokens();
  readonly random: SeededRandom;
  readonly nowMs: () => number;
  /** Region of whatever names no other. */
  readonly regionId: string;
  readonly #records: RequestRecord[] = [];
  readonly #listeners = new Set<() => void>();
  #behaviour: Behaviour;
  #version = 1;
  #sequence = 0;

  /** @throws {TypeError} If `config` is not as config.ts describes it. */
  constructor(config: CloudConfig, options: CloudOptions = {}) {
    const parsed = parseConfig(cloudConfig, config);
    this.nowMs = options.nowMs ?? Date.now;
    this.regionId = parsed.regionId;
    this.random = new SeededRandom(parsed.seed);
    this.#behaviour = parseConfig(behaviourConfig, parsed.behaviour);
    this.credentials = new Credentials(parsed, this);
    this.faults = new FaultPlan(this);
    this.network = new Network(parsed, this);
    this.routes = new RouteStore({
      network: this.network,
      random: this.random,
      behaviour: () => this.#behaviour,
      nowMs: this.nowMs,
      onChange: () => this.#changed(),
    });
    for (const table of this.network.routeTables.values()) this.#addSystemRoutes(table);
    for (const { id, entries } of parsed.routeTables) {
      for (const entry of entries) this.routes.put(id, entry, { sinceMs: 0 });
    }
    for (const fault of parsed.faults) this.faults.add(fault);
  }

  get behaviour(): Behaviour {
    return this.#behaviour;
  }

  /** Grows with each change of the state. */
  get version(): number {
    return this.#version;
  }

  /** Carries out whatever is due. */
  settle(): void {
    this.routes.settle();
  }

  /** When {@linkcode Cloud.settle} is to be called next; `undefined`: nothing is planned. */
  nextDueAtMs(): number | undefined {
    return this.routes.nextDueAtMs();
  }

  /** Calls `listener` after each change of state, until disposed. */
  subscribe(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  snapshot(): CloudSnapshot {
    this.settle();
    return structuredClone({
      version: this.#version,
      vpcs: [...this.network.vpcs.values()],
      vSwitches: [...this.network.vSwitches.values()],
      routeTables: [...this.network.routeTables.values()],
      routeEntries: this.routes.all(),
      instances: [...this.network.instances.values()],
      networkInterfaces: [...this.network.interfaces.values()],
      forwarding: this.#forwarding(),
    });
  }

  /** Route entries of a table (all tables without one), in order of creation. */
  routeEntries(routeTableId?: string): RouteEntry[] {
    this.settle();
    const entries = routeTableId === undefined
      ? this.routes.all()
      : this.routes.entriesOf(this.network.table(routeTableId).id);
    return structuredClone(entries);
  }

  // --- What an operator does -------------------------------------------------------------------

  addRoute(routeTableId: string, entry: RouteEntryConfig): RouteEntry {
    this.network.table(routeTableId);
    return structuredClone(this.routes.put(routeTableId, entry));
  }

  deleteRoute(place: RoutePlace): void {
    this.routes.remove(this.#entryAt(place));
  }

  /** Gives a route other hops; an instance may be given by its id alone. */
  repointRoute(place: RoutePlace, to: string | NextHop[]): void {
    const nextHops = typeof to === "string" ? [{ type: "Instance" as const, id: to }] : to;
    this.routes.repoint(this.#entryAt(place), nextHops);
  }

  /**
   * Fills a table with routes of somebody else to a VPN gateway, until `leave` places are free.
   * Returns how many were added.
   */
  fillTable(routeTableId: string, options: { leave?: number } = {}): number {
    const table = this.network.table(routeTableId);
    const wanted = this.routes.quotaOf(table) - (options.leave ?? 0);
    let added = 0;
    for (let n = 0; this.routes.customCount(table.id) < wanted; n++) {
      const destination = `172.${16 + (n >> 8 & 15)}.${n & 255}.0/24`;
      if (this.routes.at(table.id, destination)) continue;
      this.routes.put(table.id, {
        destination,
        nextHops: [{ type: "VpnGateway", id: "vpn-filler" }],
        name: `filler-${n}`,
      });
      added++;
    }
    return added;
  }

  /** Limits the custom entries of one table, or of every table that has no limit of its own. */
  setQuota(quota: number, options: { routeTableId?: string } = {}): void {
    if (options.routeTableId === undefined) this.setBehaviour({ quota });
    else this.network.table(options.routeTableId).quota = quota;
    this.#changed();
  }

  bindVSwitch(vSwitchId: string, routeTableId: string): void {
    const vSwitch = this.network.vSwitch(vSwitchId);
    const table = this.network.table(routeTableId);
    if (table.vpcId !== vSwitch.vpcId || table.associate !== "VSwitch") {
      throw new Error(`Cannot bind ${vSwitchId} to ${routeTableId}: wrong VPC or kind of table`);
    }
    vSwitch.routeTableId = routeTableId;
    this.#changed();
  }

  /** Binds a vSwitch to its VPC's system table again. */
  unbindVSwitch(vSwitchId: string): void {
    const { vpcId } = this.network.vSwitch(vSwitchId);
    this.bindVSwitch(vSwitchId, this.network.systemTable(vpcId).id);
  }

  addSecondaryCidr(vpcId: string, cidr: string): void {
    this.network.vpc(vpcId).secondaryCidrs.push(Prefix.parse(cidr).toString());
    this.#changed();
  }

  addInstance(instance: InstanceConfig): Instance {
    const added = this.network.addInstance(instance);
    this.#changed();
    return structuredClone(added);
  }

  /** The instance ceases to exist; routes that lead to it stay and lead nowhere. */
  releaseInstance(instanceId: string): void {
    this.network.removeInstance(instanceId);
    this.#changed();
  }

  setInstance(
    instanceId: string,
    change: Partial<Pick<Instance, "status" | "httpTokens" | "ramRole">>,
  ): void {
    Object.assign(this.network.instance(instanceId), change);
    this.#changed();
  }

  /** Sets the check of an interface, or of an instance's primary one. */
  setSourceDestCheck(id: string, enabled: boolean): void {
    const interfaceId = this.network.instances.get(id)?.networkInterfaceId ?? id;
    this.network.interface(interfaceId).sourceDestCheck = enabled;
    this.#changed();
  }

  setBehaviour(change: BehaviourConfig): void {
    const { throttle, metadata, ...rest } = change;
    this.#behaviour = parseConfig(behaviourConfig, {
      ...this.#behaviour,
      ...rest,
      throttle: { ...this.#behaviour.throttle, ...throttle },
      metadata: { ...this.#behaviour.metadata, ...metadata },
    });
  }

  /** Adds a rule of misbehaviour and returns its id. */
  addFault(fault: FaultConfig): number {
    return this.faults.add(fault);
  }

  removeFault(id: number): void {
    this.faults.remove(id);
  }

  clearFaults(): void {
    this.faults.clear();
  }

  /** Denies an action (`vpc:CreateRouteEntry`, `ecs:*`) to everyone, until permitted again. */
  denyAction(action: string): void {
    this.credentials.denyAction(action);
  }

  permitAction(action: string): void {
    this.credentials.permitAction(action);
  }

  setAccessKey(id: string, change: { secret?: string; active?: boolean; allow?: string[] }): void {
    this.credentials.setAccessKey(id, change);
  }

  removeAccessKey(id: string): void {
    this.credentials.removeAccessKey(id);
  }

  setRole(
    name: string,
    change: { allow?: string[]; lifetimeMs?: number; renewBeforeMs?: number },
  ): void {
    this.credentials.setRole(name, change);
  }

  /** New credentials for the role at once; `revoke` ends the sessions before. */
  rotateRole(name: string, options: { revoke?: boolean } = {}): void {
    this.credentials.rotateRole(name, options);
  }

  /** A token file's content for AssumeRoleWithOIDC. */
  issueOidcToken(options: { subject: string; lifetimeMs: number }): string {
    return this.credentials.issueOidcToken(options);
  }

  // --- What was asked of the cloud -------------------------------------------------------------

  /** Requests so far, oldest first; after `sinceSequence` where given. */
  requests(options: { sinceSequence?: number } = {}): RequestRecord[] {
    const since = options.sinceSequence ?? 0;
    return this.#records.filter((each) => each.sequence > since).map((each) => ({ ...each }));
  }

  /** Begins a record, to be completed when the request is answered. */
  record(
    request: Omit<
      RequestRecord,
      "sequence" | "startedAtMs" | "finishedAtMs" | "status" | "code" | "performed" | "requestId"
    >,
  ): RequestRecord {
    const record: RequestRecord = {
      ...request,
      sequence: ++this.#sequence,
      startedAtMs: this.nowMs(),
      finishedAtMs: -1,
      status: 0,
      code: "no answer",
      performed: false,
      requestId: this.random.uuid(),
    };
    this.#records.push(record);
    if (this.#records.length > MAX_RECORDS) this.#records.shift();
    return record;
  }

  #entryAt(place: RoutePlace): RouteEntry {
    this.settle();
    const destination = Prefix.parse(place.destination).toString();
    const entry = this.routes.at(place.routeTableId, destination);
    if (!entry) throw new Error(`Cannot find route ${destination} in ${place.routeTableId}`);
    return entry;
  }

  #addSystemRoutes(table: RouteTable): void {
    const put = (destination: string) =>
      this.routes.put(table.id, {
        destination,
        type: "System",
        nextHops: [{ type: "local", id: "" }],
      }, { sinceMs: 0 });
    for (const { cidr, ipv6Cidr } of this.network.vSwitchesOf(table.vpcId)) {
      put(cidr);
      if (ipv6Cidr !== undefined && table.type === "System") put(Prefix.parse(ipv6Cidr).toString());
    }
    put(SERVICE_RANGE.toString());
  }

  #forwarding(): ForwardingEntry[] {
    const found: ForwardingEntry[] = [];
    for (const entry of this.routes.all()) {
      if (entry.status !== "Available" && entry.status !== "Modifying") continue;
      for (const hop of entry.nextHops) {
        const target = hop.type === "Instance"
          ? this.network.interfacesOf(hop.id)[0]
          : this.network.interfaces.get(hop.id);
        if (!target || this.network.instance(target.instanceId).status !== "Running") continue;
        found.push({
          routeTableId: entry.routeTableId,
          destination: entry.destination,
          instanceId: target.instanceId,
          networkInterfaceId: target.id,
          via: target.privateIp,
        });
      }
    }
    return found;
  }

  #changed(): void {
    this.#version++;
    for (const listener of [...this.#listeners]) listener();
  }
}
