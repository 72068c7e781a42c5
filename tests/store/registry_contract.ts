/**
 * What every registry has to do, whatever stores it. Run on memory and on real etcd, v3 and v2.
 *
 * @module
 */
import assert from "node:assert/strict";
import { StoreError } from "../../src/store/errors.ts";
import type { LeaseSpace, Registry } from "../../src/store/keys/key_space.ts";
import { eventually } from "../support/eventually.ts";
import { WatchLog } from "./watch_log.ts";

/** A store of its own for one test. */
export interface ContractStore {
  /** A further client of the same store; the caller disposes it. */
  open(): Registry;
  setConfig(value: string | undefined): Promise<void>;
  /** Writes or, with `undefined`, deletes a key relative to the prefix, as etcdctl would. */
  write(path: string, value: string | undefined): Promise<void>;
  /** Lets at least so much time pass for the store. */
  pass(seconds: number): Promise<void>;
  /** Shortest TTL that the store keeps as given. */
  readonly shortestTtlSeconds: number;
  /** Whether a renewal leaves the revision as it is. */
  readonly renewKeepsRevision: boolean;
}

const KEY = "10.3.4.0-24";
const DUAL_STACK_KEY = "10.3.4.0-24&fd00:0:0:4::-64";
const VALUE = '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendData":{"x":"ä\\n\\"€&=+ %"}}';

/** A space of our own, with a further part as they have, to run the suite on. */
const SPACE = "ali-vpc/state";

/** Runs the suite; `createStore` is asked for a fresh store per test. */
export async function testRegistryContract(
  t: Deno.TestContext,
  createStore: () => ContractStore | Promise<ContractStore>,
): Promise<void> {
  const run = (name: string, body: (context: RegistryContext) => Promise<void>) =>
    t.step(name, async () => {
      const store = await createStore();
      const { signal } = new AbortController();
      await using registry = store.open();
      await using other = store.open();
      await body({ store, registry, other, signal });
    });
  for (const [name, body] of Object.entries(registryTests)) await run(name, body);
  for (const [name, body] of Object.entries(spaceTests)) {
    await run(name, (context) => body({ ...context, space: context.registry, folder: "subnets" }));
    await run(`in a space: ${name}`, ({ store, registry, other, signal }) => {
      const [space, ofOther] = [registry.space(SPACE), other.space(SPACE)];
      return body({ store, space, other: ofOther, folder: SPACE, signal });
    });
  }
}

interface RegistryContext {
  readonly store: ContractStore;
  readonly registry: Registry;
  /** Another host. */
  readonly other: Registry;
  readonly signal: AbortSignal;
}

interface SpaceContext {
  readonly store: ContractStore;
  readonly space: LeaseSpace;
  /** The same keys as another host sees them. */
  readonly other: LeaseSpace;
  /** Where they are below the prefix. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

const registryTests: Record<string, (context: RegistryContext) => Promise<void>> = {
  "readConfig() answers undefined until there is a config, then its text": async (context) => {
    const { store, registry } = context;
    assert.equal(await registry.readConfig(context), undefined);
    await store.setConfig(VALUE);
    assert.equal(await registry.readConfig(context), VALUE);
    await store.setConfig(undefined);
    assert.equal(await registry.readConfig(context), undefined);
  },

  "watchConfig() yields the present config and each change": async (context) => {
    const { store, registry } = context;
    const controller = new AbortController();
    const seen: (string | undefined)[] = [];
    const following = (async () => {
      for await (const value of registry.watchConfig(controller)) seen.push(value);
    })();
    const until = (count: number) =>
      eventually(() => seen.length >= count, { ...context, title: `${count} configs` });
    await until(1);
    await store.setConfig("1");
    await until(2);
    await store.setConfig("2");
    await until(3);
    await store.setConfig(undefined);
    await until(4);
    controller.abort();
    await following;
    assert.deepEqual(seen, [undefined, "1", "2", undefined]);
  },

  "spaces and leases do not see each other, and hosts share what is in them": async (context) => {
    const { registry, other } = context;
    const [state, election] = [registry.space(SPACE), registry.space("ali-vpc/election")];
    await using leases = new WatchLog(registry, context);
    await using states = new WatchLog(other.space(SPACE), context);
    await leases.until("the snapshot of leases", ({ snapshots }) => snapshots === 1);
    await states.until("the snapshot of a space", ({ snapshots }) => snapshots === 1);

    const lease = await registry.create(KEY, "lease", {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    const inState = await state.create(KEY, "state", {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    const inElection = await election.create(KEY, "election", {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    assert.deepEqual(await other.list(context), [lease]);
    assert.deepEqual(await other.space(SPACE).list(context), [inState]);
    assert.deepEqual(await other.space("ali-vpc/election").get(KEY, context), inElection);
    assert.equal(await registry.readConfig(context), undefined);

    assert.equal(await state.remove(inState!, context), true);
    assert.equal(await registry.remove(lease!, context), true);
    assert.deepEqual(await election.list(context), [inElection]);
    for (const [log, value] of [[leases, "lease"], [states, "state"]] as const) {
      await log.until("its own key's end", ({ events }) => events.at(-1)?.type === "delete");
      assert.deepEqual(
        log.events.map((event) => event.type === "put" ? event.entry.value : event.key),
        [value, KEY],
      );
    }
  },

  "space() refuses a name that leads to flannel's keys or out of the prefix": ({ registry }) => {
    const wrong = ["", "subnets", "subnets/x", "config", "../other", "a//b", "a/", "/a", "a/_b"];
    for (const name of wrong) assert.throws(() => registry.space(name), RangeError, name);
    registry.space("subnets-of-ours");
    return Promise.resolve();
  },

  "calls end with the signal's reason": async (context) => {
    const { registry } = context;
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await assert.rejects(registry.readConfig({ signal }), reason);
    await assert.rejects(registry.list({ signal }), reason);
    await assert.rejects(registry.create(KEY, VALUE, { signal, lifetimeSeconds: 60 }), reason);
    assert.equal(await registry.get(KEY, context), undefined);
    for await (const update of registry.watch({ signal })) assert.fail(`update ${update.type}`);
  },
};

const spaceTests: Record<string, (context: SpaceContext) => Promise<void>> = {
  "list() of a store without leases is empty": async (context) => {
    assert.deepEqual(await context.space.list(context), []);
    assert.equal(await context.space.get(KEY, context), undefined);
  },

  "create() creates once and answers the entry": async (context) => {
    const { space, other } = context;
    const entry = await space.create(DUAL_STACK_KEY, VALUE, {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    assert.equal(entry?.key, DUAL_STACK_KEY);
    assert.equal(entry.value, VALUE);
    assert.equal(entry.expires, true);
    assert.equal(
      await other.create(DUAL_STACK_KEY, "{}", { signal: context.signal, lifetimeSeconds: 60 }),
      undefined,
    );
    assert.deepEqual(await other.get(DUAL_STACK_KEY, context), entry);
    assert.deepEqual(await other.list(context), [entry]);
    const ttl = await other.timeToLive(DUAL_STACK_KEY, context);
    assert(ttl !== undefined && ttl > 50 && ttl <= 60, `${ttl} seconds`);
  },

  "create() by several at once has one winner": async (context) => {
    const results = await Promise.all(
      [context.space, context.other, context.space, context.other].map((each, index) =>
        each.create(KEY, String(index), { signal: context.signal, lifetimeSeconds: 60 })
      ),
    );
    const winners = results.filter((entry) => entry !== undefined);
    assert.equal(winners.length, 1);
    assert.deepEqual(await context.other.get(KEY, context), winners[0]);
  },

  "create() without TTL makes a reservation, which renewing leaves alone": async (context) => {
    const { space } = context;
    const entry = await space.create(KEY, VALUE, context);
    assert.equal(entry?.expires, false);
    assert.equal(await space.timeToLive(KEY, context), undefined);
    assert.deepEqual(await space.renew(entry, 60, context), entry);
    assert.deepEqual(await space.get(KEY, context), entry);
    assert.equal(await space.timeToLive(KEY, context), undefined);
    const updated = await space.update(entry, "{}", context);
    assert.equal(updated?.expires, false);
    assert.equal(await space.timeToLive(KEY, context), undefined);
  },

  "update() writes only over the revision it was given": async (context) => {
    const { space, other } = context;
    const first = await space.create(KEY, "1", { signal: context.signal, lifetimeSeconds: 60 });
    const second = await other.update(first!, "2", { signal: context.signal, lifetimeSeconds: 90 });
    assert.equal(second?.value, "2");
    assert.equal(second.expires, true);
    assert.notEqual(second.version, first!.version);
    assert.equal(second.order, first!.order);
    assert.equal(
      await space.update(first!, "3", { signal: context.signal, lifetimeSeconds: 60 }),
      undefined,
    );
    assert.deepEqual(await space.get(KEY, context), second);
    const ttl = await space.timeToLive(KEY, context);
    assert(ttl !== undefined && ttl > 60 && ttl <= 90, `${ttl} seconds`);
    await other.remove(second, context);
    assert.equal(
      await space.update(second, "4", { signal: context.signal, lifetimeSeconds: 60 }),
      undefined,
    );
    assert.equal(await space.get(KEY, context), undefined);
  },

  "update() can give a key an end and take it away": async (context) => {
    const { space } = context;
    const first = await space.create(KEY, "1", context);
    const second = await space.update(first!, "1", { signal: context.signal, lifetimeSeconds: 60 });
    assert.equal(second?.expires, true);
    const third = await space.update(second, "1", context);
    assert.equal(third?.expires, false);
    assert.equal((await space.get(KEY, context))?.expires, false);
  },

  "move() puts a key in another's place, and changes nothing where it cannot": async (context) => {
    const { space, other } = context;
    const first = await space.create(KEY, "1", { signal: context.signal, lifetimeSeconds: 60 });
    const blocker = await other.create("blocker", "b", {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    await using log = new WatchLog(other, context);
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    assert.equal(
      await space.move(first!, "blocker", "2", { signal: context.signal, lifetimeSeconds: 60 }),
      undefined,
    );
    const changed = await other.update(first!, "1+", {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    assert.equal(
      await space.move(first!, DUAL_STACK_KEY, "2", {
        signal: context.signal,
        lifetimeSeconds: 60,
      }),
      undefined,
    );
    assert.deepEqual(await space.get(KEY, context), changed);
    assert.deepEqual(await space.get("blocker", context), blocker);

    const moved = await space.move(changed!, DUAL_STACK_KEY, "2", {
      ...context,
      lifetimeSeconds: 90,
    });
    assert.equal(moved?.value, "2");
    assert.deepEqual(await other.get(DUAL_STACK_KEY, context), moved);
    assert.equal(await space.get(KEY, context), undefined);
    const ttl = await space.timeToLive(DUAL_STACK_KEY, context);
    assert(ttl !== undefined && ttl > 60 && ttl <= 90, `${ttl} seconds`);
    await log.until(
      "the last write",
      ({ map }) => map.get(DUAL_STACK_KEY)?.version === moved.version,
    );
    // Who goes by events, and drops what leads to a subnet with its key, has the new one last.
    assert.equal(log.events.at(-1)?.type, "put");
    assert.deepEqual([...log.map.keys()].sort(), [DUAL_STACK_KEY, "blocker"]);

    const reservation = await space.move(moved, KEY, "3", context);
    assert.equal(reservation?.expires, false);
    assert.equal((await other.get(KEY, context))?.expires, false);
  },

  "watch() goes on after a list and what was written since, missing nothing": async (context) => {
    const { space, other } = context;
    const gone = await other.create("gone", "1", { signal: context.signal, lifetimeSeconds: 60 });
    const changed = await other.create("changed", "1", {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    const listed = await space.list(context);
    await other.remove(gone!, context);
    const written = await space.create(KEY, VALUE, { signal: context.signal, lifetimeSeconds: 60 });
    await other.update(changed!, "2", { signal: context.signal, lifetimeSeconds: 60 });
    const after = { listed, written: written! };
    await using log = new WatchLog(space, { signal: context.signal, after });
    await log.until(
      "what has changed since",
      ({ map }) => !map.has("gone") && map.get("changed")?.value === "2",
    );
    assert.deepEqual(log.map.get(KEY), written);
    assert.equal(log.map.size, 2);
    assert.equal(log.snapshots, 1);
  },

  "renew() prolongs without an event for watchers": async (context) => {
    const { store, space, other, folder } = context;
    const ttl = store.shortestTtlSeconds;
    let entry = await space.create(KEY, VALUE, { signal: context.signal, lifetimeSeconds: ttl });
    await using log = new WatchLog(other, context);
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    for (let i = 0; i < 4; i++) {
      await store.pass(ttl / 2);
      const renewed = await space.renew(entry!, ttl, context);
      assert.equal(renewed?.value, VALUE);
      assert.equal(renewed.expires, true);
      if (store.renewKeepsRevision) assert.deepEqual(renewed, entry);
      entry = renewed;
    }
    // Twice its TTL has passed: without the renewals it would be gone.
    assert.deepEqual(await other.get(KEY, context), entry);
    await store.write(`${folder}/after`, "1");
    await log.until("the later key", ({ map }) => map.has("after"));
    assert.equal(log.events.length, 1);
  },

  "renew() gives a longer life than the key had": async (context) => {
    const { space } = context;
    const entry = await space.create(KEY, VALUE, { signal: context.signal, lifetimeSeconds: 30 });
    const renewed = await space.renew(entry!, 3600, context);
    assert.equal(renewed?.value, VALUE);
    const ttl = await space.timeToLive(KEY, context);
    assert(ttl !== undefined && ttl > 3500 && ttl <= 3600, `${ttl} seconds`);
    assert.deepEqual(await space.get(KEY, context), renewed);
  },

  "renew() of a changed or deleted key answers undefined and changes nothing": async (context) => {
    const { space, other } = context;
    const entry = await space.create(KEY, "1", { signal: context.signal, lifetimeSeconds: 30 });
    const changed = await other.update(entry!, "2", {
      signal: context.signal,
      lifetimeSeconds: 30,
    });
    assert.equal(await space.renew(entry!, 3600, context), undefined);
    assert((await space.timeToLive(KEY, context))! <= 30);
    assert.deepEqual(await space.get(KEY, context), changed);
    await other.remove(changed!, context);
    assert.equal(await space.renew(changed!, 3600, context), undefined);
    assert.equal(await space.get(KEY, context), undefined);
  },

  "remove() deletes only at the revision it was given": async (context) => {
    const { space, other } = context;
    const first = await space.create(KEY, "1", { signal: context.signal, lifetimeSeconds: 60 });
    const second = await other.update(first!, "2", { signal: context.signal, lifetimeSeconds: 60 });
    assert.equal(await space.remove(first!, context), false);
    assert.deepEqual(await other.get(KEY, context), second);
    assert.equal(await space.remove(second!, context), true);
    assert.equal(await space.remove(second!, context), false);
    assert.equal(await other.get(KEY, context), undefined);
    assert.equal(await other.timeToLive(KEY, context), undefined);
  },

  "a key ends after its TTL, and watchers see a deletion": async (context) => {
    const { store, space, other } = context;
    await using log = new WatchLog(other, context);
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    await space.create(KEY, VALUE, {
      signal: context.signal,
      lifetimeSeconds: store.shortestTtlSeconds,
    });
    await log.until("the key", ({ map }) => map.has(KEY));
    await store.pass(store.shortestTtlSeconds);
    await log.until("the key's end", ({ map }) => !map.has(KEY));
    assert.deepEqual(await space.list(context), []);
    assert.notEqual(
      await space.create(KEY, VALUE, { signal: context.signal, lifetimeSeconds: 60 }),
      undefined,
    );
  },

  "foreign keys pass through, and neighbours of the prefix do not": async (context) => {
    const { store, space, other, folder } = context;
    await using log = new WatchLog(other, context);
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    await store.write(`${folder}foo`, "near");
    await store.write("other/10.9.9.0-24", "elsewhere");
    await store.write(`${folder}/not a key ü%20&`, "not json");
    await store.write(`${folder}/deep/er`, "");
    const entry = await space.create(KEY, VALUE, { signal: context.signal, lifetimeSeconds: 60 });
    const listed = await space.list(context);
    assert.deepEqual(
      listed.map(({ key, value }) => [key, value]).sort(),
      [[KEY, VALUE], ["deep/er", ""], ["not a key ü%20&", "not json"]],
    );
    assert.deepEqual(listed.find(({ key }) => key === KEY), entry);
    await log.until("all keys", ({ map }) => map.size === 3);
    assert.deepEqual([...log.map.values()].sort(byKey), [...listed].sort(byKey));
    await store.write(`${folder}/deep/er`, undefined);
    await log.until("the deletion", ({ map }) => !map.has("deep/er"));
  },

  "watch() starts with a snapshot and tells each change once, in order": async (context) => {
    const { space, other } = context;
    const before = await other.create("10.3.1.0-24", VALUE, {
      signal: context.signal,
      lifetimeSeconds: 60,
    });
    await using log = new WatchLog(space, context);
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    assert.deepEqual([...log.map.values()], [before]);

    let entry = await other.create(KEY, "0", context);
    for (let i = 1; i < 50; i++) {
      entry = await other.update(entry!, String(i), context);
    }
    await other.remove(entry!, context);
    await log.until("the deletion", ({ events }) => events.at(-1)?.type === "delete");
    assert.equal(log.events.length, 51);
    const values = log.events.flatMap((event) => event.type === "put" ? [event.entry.value] : []);
    assert.deepEqual(values, Array.from({ length: 50 }, (_, i) => String(i)));
    assert.deepEqual(log.events.at(-1), { type: "delete", key: KEY });
    assert.equal(log.snapshots, 1);
    assert.deepEqual(log.outages, []);
  },

  "watch() follows many writers": async (context) => {
    const { space, other } = context;
    await using log = new WatchLog(space, context);
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    await Promise.all(Array.from({ length: 60 }, async (_, i) => {
      const writer = i % 2 === 0 ? other : space;
      const entry = await writer.create(`10.3.${i}.0-24`, VALUE, {
        ...context,
        lifetimeSeconds: 60,
      });
      if (i % 3 === 0) await writer.remove(entry!, context);
    }));
    const listed = [...await other.list(context)].sort(byKey);
    assert.equal(listed.length, 40);
    await log.until("all events", ({ events }) => events.length >= 80);
    assert.deepEqual([...log.map.values()].sort(byKey), listed);
    assert.equal(log.events.length, 80);
  },
};

function byKey(a: { key: string }, b: { key: string }): number {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

/** Asserts that `promise` fails as the store's own failure of kind `reason`. */
export async function rejectsWith(
  promise: Promise<unknown>,
  reason: StoreError["reason"],
  message: RegExp,
): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert(error instanceof StoreError, `not a StoreError: ${error}`);
    assert.match(error.message, message);
    assert.equal(error.reason, reason);
    return true;
  });
}
