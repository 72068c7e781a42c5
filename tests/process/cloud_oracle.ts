/**
 * Judges the writes that a cloud has carried out by what the clusters' stores said at the time.
 *
 * @module
 */
import { Prefix } from "../../src/net/mod.ts";
import type { RequestRecord, RouteEntry } from "../simulator/model.ts";
import { writesAmong } from "./cloud_support.ts";

/** One cluster whose writes are judged. */
export interface JudgedCluster {
  /** Where its keys are. */
  readonly prefix: string;
  /** Its id and pod network, by which its entries are marked. */
  readonly id: string;
  readonly network: string;
  /** Its `RouteGraceSeconds`. */
  readonly graceMs: number;
  /** Its hosts' instances by the addresses that they call from. */
  readonly instances: ReadonlyMap<string, string>;
}

/**
 * A daemon acts on what it knew a moment ago, its request is under way for another one, and this
 * process hears of everything late: what held at some time within this counts as true.
 */
const KNOWLEDGE_MS = 2_000;

/** The value of something over time. */
class Timeline<Value> {
  readonly #changes: { readonly atMs: number; readonly value: Value | undefined }[] = [];

  /** To be called in the order of time. */
  set(atMs: number, value: Value | undefined): void {
    this.#changes.push({ atMs, value });
  }

  /** When there was first a value. */
  get sinceMs(): number {
    return this.#changes[0]?.atMs ?? Infinity;
  }

  /** Each value that held at some time from `fromMs` to `toMs`; `undefined` among them. */
  within(fromMs: number, toMs: number): (Value | undefined)[] {
    const values: (Value | undefined)[] = fromMs < this.sinceMs ? [undefined] : [];
    for (const [index, { atMs, value }] of this.#changes.entries()) {
      const untilMs = this.#changes[index + 1]?.atMs ?? Infinity;
      if (atMs <= toMs && untilMs > fromMs) values.push(value);
    }
    return values;
  }

  around(atMs: number): (Value | undefined)[] {
    return this.within(atMs - KNOWLEDGE_MS, atMs + KNOWLEDGE_MS);
  }
}

/** What is known of one cluster. */
interface Book extends JudgedCluster {
  /** Subnets in CIDR notation, with the instance that each is leased to. */
  readonly leases: Map<string, Timeline<string>>;
  /** The instance of the route leader. */
  readonly office: Timeline<string>;
}

interface EntryState {
  readonly name: string;
  /** Ids of all hops. */
  readonly hop: string;
  readonly status: string;
}

/** An entry as long as it is one. */
interface EntryBook {
  readonly place: string;
  readonly destination: string;
  readonly states: Timeline<EntryState>;
  isGone: boolean;
}

/** One entry's part of a request. */
type Write =
  | { readonly do: "create"; readonly place: string; readonly subnet: string; readonly hop: string }
  | { readonly do: "modify"; readonly id: string; readonly hop?: string; readonly name?: string }
  | { readonly do: "delete"; readonly id: string };

/**
 * Is told what happens to stores and cloud, and names each write that was not justified:
 *
 * - a create leads a leased subnet to its lease's instance, where no right entry stands;
 * - a modify brings an entry of ours there, or names one that leads there, and changes something;
 * - a delete is of an entry of ours whose subnet has not been leased for the grace, or an upstream
 *   host has, or whose instance has the lease of another subnet; what is needed is never deleted to be made again;
 * - each is by the instance that holds the office, or, where that is allowed, for its own place.
 */
export class CloudOracle {
  readonly #books: readonly Book[];
  readonly #entries = new Map<string, EntryBook>();
  readonly #ownPlaces: boolean;

  constructor(
    clusters: readonly JudgedCluster[],
    options: {
      /** Whether hosts may write their own entries, for want of a writer. @default {false} */
      readonly ownPlaces?: boolean;
    } = {},
  ) {
    this.#books = clusters.map((cluster) => ({
      ...cluster,
      leases: new Map(),
      office: new Timeline(),
    }));
    this.#ownPlaces = options.ownPlaces ?? false;
  }

  /** Notes that a key of the store has a value from now on, or none. */
  noteKey(atMs: number, key: string, value: string | undefined): void {
    for (const { prefix, leases, office } of this.#books) {
      if (key === `${prefix}/ali-vpc/election/writer`) {
        office.set(atMs, value === undefined ? undefined : JSON.parse(value).instance);
      }
      if (!key.startsWith(`${prefix}/subnets/`)) continue;
      const subnet = key.slice(`${prefix}/subnets/`.length).replace("-", "/");
      const timeline = leases.get(subnet) ?? new Timeline<string>();
      leases.set(subnet, timeline);
      // Of an upstream host nobody says which instance it is.
      timeline.set(atMs, value && (JSON.parse(value).BackendData?.InstanceID ?? "upstream"));
    }
  }

  /** Notes all entries of all tables as they are now. */
  noteEntries(atMs: number, entries: readonly RouteEntry[]): void {
    const present = new Set(entries.map(({ id }) => id));
    for (const [id, book] of this.#entries) {
      if (present.has(id) || book.isGone) continue;
      book.isGone = true;
      book.states.set(atMs, undefined);
    }
    for (const { id, routeTableId, destination, name, nextHops, status } of entries) {
      const book = this.#entries.get(id) ?? {
        place: `${routeTableId} ${destination}`,
        destination,
        states: new Timeline<EntryState>(),
        isGone: false,
      };
      this.#entries.set(id, book);
      book.states.set(atMs, { name, hop: nextHops.map((each) => each.id).join(), status });
    }
  }

  /** A line per unjustified write among the requests; to be asked once all else was noted. */
  judge(requests: readonly RequestRecord[]): string[] {
    return writesAmong(requests).filter(({ action }) => /RouteEntr(y|ies)$/.test(action))
      .flatMap((request) => {
        const book = this.#books.find(({ instances }) => instances.has(request.source));
        const writes = readWrites(request);
        const faults = book === undefined
          ? ["by a stranger"]
          : writes.flatMap((write) => this.#judge(write, request, book));
        return faults.map((fault) =>
          `#${request.sequence} ${request.action} by ${
            book?.instances.get(request.source) ?? request.source
          } (${request.code}): ${fault}`
        );
      });
  }

  #judge(write: Write, request: RequestRecord, book: Book): string[] {
    const { startedAtMs: atMs, performed } = request;
    const entry = write.do === "create" ? undefined : this.#entries.get(write.id);
    if (write.do !== "create" && entry === undefined) return [`of the unknown entry ${write.id}`];
    const states = entry?.states.around(atMs) ?? [];
    // Whoever had looked would not have asked.
    if (entry && states.every((state) => state === undefined)) {
      return [`of ${entry.destination}, which had gone`];
    }
    const faults = write.do === "create"
      ? this.#judgeCreate(write, atMs, book)
      : write.do === "modify"
      ? this.#judgeModify(write, entry!, states, atMs, book)
      : this.#judgeDelete(entry!, states, atMs, book);
    const subnet = write.do === "create" ? write.subnet : entry!.destination;
    // What the service refused has done no harm, whoever asked for it.
    if (performed) faults.push(...this.#judgeSource(subnet, states, request, book));
    return faults;
  }

  #judgeCreate(
    { place, subnet, hop }: Write & { do: "create" },
    atMs: number,
    book: Book,
  ): string[] {
    if (!holdersOf(book, subnet, atMs).includes(hop)) {
      return [`of ${subnet} via ${hop}, which has no lease of it`];
    }
    const standing = [...this.#entries.values()].filter((each) => each.place === place);
    const isNeedless = standing.some(({ states }) =>
      states.around(atMs).every((state) => state?.hop === hop && state.status === "Available")
    );
    return isNeedless ? [`of ${subnet} via ${hop}, which stands already`] : [];
  }

  #judgeModify(
    { hop, name }: Write & { do: "modify" },
    { destination }: EntryBook,
    states: readonly (EntryState | undefined)[],
    atMs: number,
    book: Book,
  ): string[] {
    const holders = holdersOf(book, destination, atMs);
    const known = states.filter((state) => state !== undefined);
    const faults: string[] = [];
    const isOurs = known.some((state) =>
      isMarked(state, book) || (state.name === "" && holders.includes(state.hop))
    );
    if (!isOurs) faults.push(`of the foreign entry ${destination}`);
    if (!known.some((state) => holders.includes(hop ?? state.hop))) {
      faults.push(`of ${destination} to ${hop ?? "what it is"}, which has no lease of it`);
    }
    const isNeedless = states.every((state) =>
      state !== undefined && state.hop === (hop ?? state.hop) && state.name === (name ?? state.name)
    );
    if (isNeedless) faults.push(`of ${destination}, which is so already`);
    return faults;
  }

  #judgeDelete(
    { destination, states: whole }: EntryBook,
    states: readonly (EntryState | undefined)[],
    atMs: number,
    book: Book,
  ): string[] {
    const known = states.filter((state) => state !== undefined);
    if (!known.some((state) => isMarked(state, book))) {
      return [`of the foreign entry ${destination}`];
    }
    const lease = book.leases.get(destination);
    // Its own entry must not be in its way.
    if (lease?.around(atMs).every((holder) => holder === "upstream")) return [];
    if (lease?.around(atMs).every((holder) => holder !== undefined)) {
      return [`of ${destination}, which is leased`];
    }
    const moved = [...book.leases].some(([subnet, timeline]) =>
      subnet !== destination &&
      timeline.around(atMs).some((holder) => known.some(({ hop }) => hop === holder))
    );
    if (moved) return [];
    const graceFromMs = atMs - book.graceMs + KNOWLEDGE_MS;
    const held = lease?.within(graceFromMs, atMs - KNOWLEDGE_MS) ?? [];
    return held.some((holder) => holder !== undefined) || whole.sinceMs > graceFromMs
      ? [`of ${destination}, whose grace is not over`]
      : [];
  }

  #judgeSource(
    subnet: string,
    states: readonly (EntryState | undefined)[],
    { source, startedAtMs }: RequestRecord,
    book: Book,
  ): string[] {
    const instanceId = book.instances.get(source)!;
    const holders = book.office.around(startedAtMs);
    if (holders.includes(instanceId)) return [];
    const isOwn = holdersOf(book, subnet, startedAtMs).includes(instanceId) ||
      states.some((state) => state?.hop === instanceId);
    if (this.#ownPlaces && isOwn) return [];
    return [`of ${subnet}, while the route leader is ${holders.join(" or ")}`];
  }
}

function holdersOf(book: Book, subnet: string, atMs: number): (string | undefined)[] {
  return book.leases.get(subnet)?.around(atMs) ?? [];
}

function isMarked({ name }: EntryState, { id, network }: JudgedCluster): boolean {
  return name.startsWith(`flanneld/${id}/${network}/`);
}

/** What a request asks for, entry by entry. */
function readWrites({ action, params }: RequestRecord): Write[] {
  const cidr = (text = "") => Prefix.parse(text).toString();
  switch (action) {
    case "CreateRouteEntry": {
      const subnet = cidr(params["DestinationCidrBlock"]);
      const place = `${params["RouteTableId"]} ${subnet}`;
      return [{ do: "create", place, subnet, hop: params["NextHopId"] ?? "" }];
    }
    case "ModifyRouteEntry": {
      const { RouteEntryId = "", NewNextHopId, RouteEntryName } = params;
      return [{
        do: "modify",
        id: RouteEntryId,
        ...(NewNextHopId === undefined ? {} : { hop: NewNextHopId }),
        ...(RouteEntryName === undefined ? {} : { name: RouteEntryName }),
      }];
    }
    case "DeleteRouteEntry":
      return [{ do: "delete", id: params["RouteEntryId"] ?? "" }];
  }
  const writes: Write[] = [];
  for (let n = 1; params[`RouteEntries.${n}.RouteTableId`] !== undefined; n++) {
    const field = (name: string) => params[`RouteEntries.${n}.${name}`];
    if (action === "DeleteRouteEntries") {
      writes.push({ do: "delete", id: field("RouteEntryId") ?? "" });
    } else {
      const subnet = cidr(field("DstCidrBlock"));
      const place = `${field("RouteTableId")} ${subnet}`;
      writes.push({ do: "create", place, subnet, hop: field("NextHop") ?? "" });
    }
  }
  return writes;
}
