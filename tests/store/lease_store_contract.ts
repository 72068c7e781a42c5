/**
 * What every lease store has to do, whatever it is: one that lets hosts choose their subnets, and
 * one that is given them.
 *
 * @module
 */
import assert from "node:assert/strict";
import { parseLease } from "../../src/lease/codec.ts";
import type { Lease, LeaseAttributes } from "../../src/lease/lease.ts";
import { type LeaseEntry, LeaseMap } from "../../src/lease/lease_map.ts";
import { Address } from "../../src/net/mod.ts";
import type { DocumentUpdate } from "../../src/store/documents.ts";
import type { LeaseRequest, LeaseStore } from "../../src/store/lease_store.ts";
import { eventually } from "../support/eventually.ts";
import { MemoryLogger, NETWORK } from "./support.ts";

/** A network of its own for one test. */
export interface ContractNetwork {
  /** The store as the nth host sees it; the caller disposes it. */
  open(host: number): Promise<LeaseStore>;
  setConfig(text: string | undefined): Promise<void>;
  close?(): void;
}

const CONFIG = '{"Network":"10.24.0.0/16"}';

/** Runs the suite; `createNetwork` is asked for a fresh one per test. */
export async function testLeaseStoreContract(
  t: Deno.TestContext,
  createNetwork: () => ContractNetwork | Promise<ContractNetwork>,
): Promise<void> {
  for (const [name, body] of Object.entries(tests)) {
    await t.step(name, async () => {
      const net = await createNetwork();
      const stop = new AbortController();
      await using one = await net.open(1);
      await using two = await net.open(2);
      if (!name.startsWith("config")) {
        await net.setConfig(CONFIG);
        assert.equal(await one.config.read(stop), CONFIG);
        assert.equal(await two.config.read(stop), CONFIG);
      }
      const context = new Context(net, one, two, stop.signal);
      try {
        await body(context);
      } finally {
        stop.abort(new Error("The test is over"));
        await context.settled();
        net.close?.();
      }
    });
  }
}

/** One test's surroundings. */
class Context {
  readonly #running: Promise<unknown>[] = [];

  constructor(
    readonly net: ContractNetwork,
    readonly one: LeaseStore,
    readonly two: LeaseStore,
    readonly signal: AbortSignal,
  ) {}

  /** Has something run until the end of the test. */
  run(loop: Promise<unknown>): void {
    this.#running.push(loop.catch(() => {}));
  }

  async settled(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** Folds the leases that a store tells of into a map, until the end of the test. */
  follow(store: LeaseStore): LeaseMap {
    const leases = new LeaseMap({ network: NETWORK });
    this.run((async () => {
      for await (const update of store.followLeases({ signal: this.signal })) {
        if (update.type === "snapshot") leases.replace(update.entries);
        if (update.type !== "events") continue;
        for (const event of update.events) {
          if (event.type === "put") leases.put(event.entry);
          else leases.delete(event.key);
        }
      }
    })());
    return leases;
  }

  readonly until = async (condition: () => unknown, title: string): Promise<void> => {
    const { signal } = this;
    await eventually(async () => Boolean(await condition()), { signal, title, intervalMs: 10 });
  };
}

/** What the nth host asks for. */
function request(host: number, more: Partial<LeaseRequest> = {}): LeaseRequest {
  return {
    network: NETWORK,
    attributes: attributesOf(host),
    previous: undefined,
    log: new MemoryLogger(),
    ...more,
  };
}

function attributesOf(host: number, vni = 1): LeaseAttributes {
  const publicIp = Address.parse(`192.0.2.${host}`);
  return { publicIp, backendType: "vxlan", backendData: { VNI: vni } };
}

function leaseOf(leases: LeaseMap, host: number): Lease | undefined {
  const ip = `192.0.2.${host}`;
  return [...leases.leases()].find(({ attributes }) => String(attributes.publicIp) === ip);
}

const tests: Record<string, (context: Context) => Promise<void>> = {
  "config: is missing, is there, and is followed": async ({ net, one, signal, until }) => {
    assert.equal(await one.config.read({ signal }), undefined);
    assert.match(await one.config.explainMissing(CONFIG, { signal }), /10\.24\.0\.0/);
    await net.setConfig(CONFIG);
    assert.equal(await one.config.read({ signal }), CONFIG);
    const seen: (string | undefined)[] = [];
    const stop = new AbortController();
    const following = (async () => {
      for await (const text of one.config.follow(stop)) seen.push(text);
    })();
    await until(() => seen.length === 1, "the config");
    await net.setConfig("{}");
    await until(() => seen.length === 2, "another one");
    await net.setConfig(undefined);
    await until(() => seen.length === 3, "none");
    stop.abort();
    await following;
    assert.deepEqual(seen, [CONFIG, "{}", undefined]);
  },

  "leases: each host has one of its own, which all see": async (context) => {
    const { one, two, signal } = context;
    const leases = context.follow(two);
    const own = await one.acquire(request(1), { signal });
    const other = await two.acquire(request(2), { signal });
    assert.ok(own.state.value.held);
    assert.ok(NETWORK.ipv4.network.contains(own.lease.value.subnet.ipv4!));
    assert.ok(!own.lease.value.subnet.ipv4!.overlaps(other.lease.value.subnet.ipv4!));
    await context.until(() => leases.complete && leases.size === 2, "both leases");
    assert.deepEqual(leases.get(own.lease.value.key), own.lease.value);
    assert.deepEqual(leaseOf(leases, 2), other.lease.value);
    assert.equal(leases.skippedCount, 0);
  },

  "leases: entries can be read by themselves, and have an order": async (context) => {
    const { one, two, signal } = context;
    await one.acquire(request(1), { signal });
    await two.acquire(request(2), { signal });
    let entries: readonly LeaseEntry[] = [];
    for await (const update of two.followLeases({ signal })) {
      assert.equal(update.type, "snapshot", "the first update");
      if (update.type === "snapshot") entries = update.entries;
      break;
    }
    const byAge = [...entries].sort((a, b) => a.order < b.order ? -1 : 1).map(parseLease);
    const addresses = byAge.map(({ attributes }) => String(attributes.publicIp));
    assert.deepEqual(addresses, ["192.0.2.1", "192.0.2.2"]);
  },

  "own lease: is the same after a restart, which learns what it published": async (context) => {
    const { one, net, signal } = context;
    const before = await one.acquire(request(1), { signal });
    await using again = await net.open(1);
    await again.config.read({ signal });
    const told: LeaseAttributes[] = [];
    const after = await again.acquire(
      request(1, {
        attributes: attributesOf(1, 2),
        inherit: (former) => {
          told.push(former);
          return attributesOf(1, 3);
        },
      }),
      { signal },
    );
    assert.equal(after.lease.value.key, before.lease.value.key);
    assert.deepEqual(told, [attributesOf(1)]);
    assert.deepEqual(after.lease.value.attributes, attributesOf(1, 3));
    const leases = context.follow(again);
    await context.until(() => leaseOf(leases, 1) !== undefined, "the own lease");
    assert.deepEqual(leaseOf(leases, 1), after.lease.value);
  },

  "own lease: what is published reaches others, and no redrawing is needed for it": async (c) => {
    const { one, two, signal } = c;
    const own = await one.acquire(request(1), { signal });
    c.follow(one);
    c.run(own.run({ signal }));
    const leases = c.follow(two);
    await c.until(() => leaseOf(leases, 1) !== undefined, "the lease");
    const seen: Lease[] = [];
    own.lease.subscribe((lease) => seen.push(lease));
    own.publish(attributesOf(1, 7));
    assert.deepEqual(own.lease.value.attributes, attributesOf(1, 7));
    assert.equal(seen.length, 1);
    await c.until(() => leases.get(own.lease.value.key) === leaseOf(leases, 1), "the same key");
    const isNew = () => String(JSON.stringify(leaseOf(leases, 1))).includes('"VNI":7');
    await c.until(isNew, "the new attributes");
    assert.ok(own.state.value.held);
  },

  "own lease: after a redraw there is a lease all the same": async (context) => {
    const { one, signal } = context;
    const own = await one.acquire(request(1), { signal });
    const leases = context.follow(one);
    context.run(own.run({ signal }));
    own.redraw("a route entry");
    const isThere = () => leases.get(own.lease.value.key) !== undefined;
    await context.until(isThere, "the lease");
    await new Promise((resolve) => setTimeout(resolve, 100));
    await context.until(isThere, "the lease that stays");
    assert.ok(own.state.value.held);
    assert.equal(leases.size, 1);
  },

  "own lease: once released it is no lease any more": async (context) => {
    const { one, two, signal } = context;
    const own = await one.acquire(request(1), { signal });
    await two.acquire(request(2), { signal });
    const leases = context.follow(two);
    await context.until(() => leases.size === 2, "both leases");
    const addresses = [Address.parse("192.0.2.1"), Address.parse("2001:db8::1")];
    const { released, kept } = await one.release({ addresses, log: new MemoryLogger() }, {
      signal,
    });
    const subnets = [...released, ...kept].map(({ ipv4 }) => String(ipv4));
    assert.deepEqual(subnets, [String(own.lease.value.subnet.ipv4)]);
    await context.until(() => leases.size === 1, "its end");
    assert.ok(leaseOf(leases, 2));
  },

  "documents: are compared and set, each by itself": async ({ one, two, signal }) => {
    const [mine, theirs] = [one, two].map((store) => store.documents("ali-vpc/state"));
    const first = await mine!.create("summary", "1", { signal });
    assert.equal(first?.value, "1");
    assert.equal(await theirs!.create("summary", "2", { signal }), undefined, "it is there");
    assert.deepEqual(await theirs!.get("summary", { signal }), first);
    const second = await theirs!.update(first, "2", { signal });
    assert.equal(second?.value, "2");
    assert.notEqual(second.version, first.version);
    assert.equal(await mine!.update(first, "3", { signal }), undefined, "it has changed");
    assert.equal(await mine!.remove(first, { signal }), false);
    const other = await mine!.create("other", "ä\n€", { signal });
    const listed = [...await theirs!.list({ signal })].sort((a, b) => a.key < b.key ? -1 : 1);
    assert.deepEqual(listed, [other, second]);
    assert.equal(await mine!.remove(second, { signal }), true);
    assert.equal(await theirs!.get("summary", { signal }), undefined);
    assert.deepEqual(await one.documents("ali-vpc/hosts-1").list({ signal }), [], "apart by name");
    assert.match(mine!.writeCommand("summary", "x"), /ali-vpc\/state\/summary/);
    assert.throws(() => one.documents("../config"), RangeError);
  },

  "documents: go at the end of their lifetime": async ({ one, two, signal, until }) => {
    const documents = one.documents("ali-vpc/removals");
    await documents.create("kept", "1", { signal });
    await documents.create("gone", "1", { signal, lifetimeSeconds: 2 });
    assert.equal((await documents.list({ signal })).length, 2);
    const theirs = two.documents("ali-vpc/removals");
    await until(async () => await theirs.get("gone", { signal }) === undefined, "its end");
    assert.deepEqual((await theirs.list({ signal })).map(({ key }) => key), ["kept"]);
    assert.ok(await theirs.create("gone", "2", { signal }), "there is room for another one");
  },

  "documents: are followed one by one": async (context) => {
    const { one, two, signal } = context;
    const documents = one.documents("ali-vpc/state");
    const seen: DocumentUpdate[] = [];
    context.run((async () => {
      for await (const update of two.documents("ali-vpc/state").follow("summary", { signal })) {
        seen.push(update);
      }
    })());
    const until = (count: number) => context.until(() => seen.length === count, `${count} updates`);
    await until(1);
    await documents.create("other", "0", { signal });
    const first = await documents.create("summary", "1", { signal });
    await until(2);
    const second = await documents.update(first!, "2", { signal });
    await until(3);
    await documents.remove(second!, { signal });
    await until(4);
    assert.deepEqual(
      seen.map((update) => update.type === "current" ? update.document?.value : update.type),
      [undefined, "1", "2", undefined],
    );
    assert.deepEqual(seen[1], { type: "current", document: first });
  },

  "election: one leads, who can prove it, until it resigns": async (context) => {
    const { one, two, signal } = context;
    const log = new MemoryLogger();
    const name = "ali-vpc/election/writer";
    const [first, second] = [one, two].map((store, i) =>
      store.election({ name, holder: `host-${i + 1}`, log })
    );
    assert.equal(first!.vacantMs, undefined, "nothing is known");
    const term = await first!.tryOnce({ signal });
    assert.ok(term);
    assert.equal(await second!.tryOnce({ signal }), undefined);
    context.run(first!.run({ signal }));
    context.run(second!.run({ signal }));
    const leader = (election: typeof first) => election!.leadership.value?.holder;
    await context.until(() => leader(second) === "host-1", "the leader as the other one sees it");
    assert.equal(second!.vacantMs, 0);
    await term.confirm({ signal });
    let changes = 0;
    second!.leadership.subscribe(() => changes++);
    await first!.resign({ signal, pauseMs: 60_000 });
    assert.ok(term.signal.aborted);
    await assert.rejects(term.confirm({ signal }));
    assert.equal(first!.term, undefined);
    await context.until(() => second!.term !== undefined, "the other's term");
    await context.until(() => leader(first) === "host-2", "the leader as the first one sees it");
    assert.ok(changes >= 1);
    assert.notEqual(second!.term!.id, term.id);
    second!.candidate = false;
    await context.until(() => second!.term === undefined, "its end");
  },
};
