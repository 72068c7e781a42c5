import assert from "node:assert/strict";
import fc from "fast-check";
import type { Logger } from "../log.ts";
import { diff } from "./diff.ts";
import { Reconciler } from "./reconciler.ts";
import type { Change, FailedChange, Kind, Table } from "./table.ts";

interface Thing {
  readonly name: string;
  readonly value: number;
  readonly owner: string;
}

const kind: Kind<Thing> = {
  id: "route",
  name: "thing",
  key: ({ name }) => name,
  equal: (a, b) => a.value === b.value && a.owner === b.owner,
  owns: ({ owner }) => owner === "us",
  format: ({ name, value }) => `${name}=${value}`,
};

/** A Table in memory that can be told to fail. */
class MemoryTable implements Table<Thing> {
  readonly kind = kind;
  readonly things = new Map<string, Thing>();
  readonly broken = new Set<string>();
  readonly operations: string[] = [];
  lists = 0;
  listError: Error | undefined;

  constructor(things: readonly Thing[] = []) {
    for (const thing of things) this.things.set(thing.name, thing);
  }

  list(): Promise<Thing[]> {
    this.lists++;
    return this.listError
      ? Promise.reject(this.listError)
      : Promise.resolve([...this.things.values()]);
  }

  apply(changes: readonly Change<Thing>[]): Promise<FailedChange<Thing>[]> {
    return Promise.resolve(changes.flatMap((change) => {
      const thing = change.op === "remove" ? change.actual : change.desired;
      if (this.broken.has(thing.name)) return [{ change, error: new Error("it is broken") }];
      this.operations.push(`${change.op} ${thing.name}`);
      if (change.op === "remove") this.things.delete(thing.name);
      else this.things.set(thing.name, thing);
      return [];
    }));
  }
}

function recorder(): Logger & { lines: string[] } {
  const lines: string[] = [];
  const write = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  const log = {
    lines,
    trace: write("trace"),
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: () => log,
  };
  return log;
}

function ours(name: string, value = 1): Thing {
  return { name, value, owner: "us" };
}

function reconciler(tables: MemoryTable[], desired: (readonly Thing[] | undefined)[]) {
  const log = recorder();
  const stages = tables.map((table, i) => ({ table, desired: () => desired[i] }));
  return { log, it: new Reconciler({ name: "things", stages, resyncMs: 50, settleMs: 1, log }) };
}

const { signal } = new AbortController();

Deno.test("diff() applied makes own things equal to the desired ones and leaves foreign ones", async () => {
  const thing = fc.record({
    name: fc.constantFrom("a", "b", "c", "d"),
    value: fc.nat(2),
    owner: fc.constantFrom("us", "them"),
  }, { noNullPrototype: true });
  const set = fc.uniqueArray(thing, { selector: ({ name }) => name });
  await fc.assert(fc.asyncProperty(set, set, async (desired, actual) => {
    const wanted = desired.map((each) => ({ ...each, owner: "us" }));
    const table = new MemoryTable(actual);
    const { writes, removals, conflicts } = diff(kind, wanted, actual);
    await table.apply([...writes, ...removals]);
    const foreign = actual.filter(({ owner }) => owner === "them");
    for (const each of foreign) assert.deepEqual(table.things.get(each.name), each);
    for (const each of wanted) {
      const blocked = foreign.some(({ name }) => name === each.name);
      assert.equal(conflicts.some((c) => c.desired.name === each.name), blocked);
      if (!blocked) assert.deepEqual(table.things.get(each.name), each);
    }
    const left = [...table.things.values()].filter(({ owner }) => owner === "us");
    assert.ok(left.every(({ name }) => wanted.some((each) => each.name === name)));
    const again = diff(kind, wanted, [...table.things.values()]);
    assert.equal(again.writes.length + again.removals.length, 0, "a second time nothing is left");
  }));
});

Deno.test("diff() removes own duplicates and refuses a plan that contradicts itself", () => {
  const { removals } = diff(kind, [ours("a")], [ours("a"), ours("a", 2)]);
  assert.deepEqual(removals, [{ op: "remove", actual: ours("a", 2) }]);
  assert.throws(() => diff(kind, [ours("a"), ours("a", 2)], []), /desired twice/);
});

Deno.test("Reconciler creates in order, removes in reverse, and is silent when all is right", async () => {
  const [links, routes] = [new MemoryTable([ours("old")]), new MemoryTable([ours("stale")])];
  const operations: string[] = [];
  for (const table of [links, routes]) {
    table.operations.push = (...items) => operations.push(...items);
  }
  const { it, log } = reconciler([links, routes], [[ours("link")], [ours("route")]]);
  const report = await it.round({ signal });
  assert.deepEqual(operations, ["add link", "add route", "remove stale", "remove old"]);
  assert.deepEqual(report, { inSync: true, changed: 4, problems: [], unseen: false });
  const lines = log.lines.length;
  const again = await it.round({ signal });
  assert.deepEqual(again, { inSync: true, changed: 0, problems: [], unseen: false });
  assert.equal(operations.length, 4);
  assert.equal(log.lines.length, lines);
});

Deno.test("Reconciler goes on past failures and says each once", async () => {
  const table = new MemoryTable([{ name: "c", value: 9, owner: "them" }]);
  table.broken.add("a");
  const { it, log } = reconciler([table], [[ours("a"), ours("b"), ours("c")]]);
  const report = await it.round({ signal });
  assert.equal(report.inSync, false);
  assert.deepEqual(report.problems, [
    "Cannot set thing c=1: c=9 stands in its place and is not ours",
    "Cannot add thing a=1: it is broken",
  ]);
  assert.ok(table.things.has("b"));
  const lines = log.lines.length;
  await it.round({ signal });
  assert.equal(log.lines.length, lines, "a lasting problem is not repeated");
  table.broken.clear();
  table.things.delete("c");
  assert.equal((await it.round({ signal })).inSync, true);
  assert.equal(log.lines.at(-1), "info All of things is in order again");
});

Deno.test("Reconciler takes problems that differ in a request's id alone for one, and lists few", async () => {
  const table = new MemoryTable();
  const { it, log } = reconciler([table], [[ours("a")]]);
  for (let n = 0; n < 5; n++) {
    table.listError = new Error(`Throttling [HTTP 400, request ${crypto.randomUUID()}]`);
    assert.deepEqual((await it.round({ signal })).problems, [table.listError.message]);
    // Now and then it works: that is no reason to tell it all again.
    table.listError = undefined;
    await it.round({ signal });
  }
  const said = log.lines.filter((line) => /Throttling|in order/.test(line));
  assert.equal(said.length, 2, said.join("\n"));

  const many = Array.from({ length: 1_000 }, (_, n) => ours(`thing-${n}`));
  const failing = new MemoryTable();
  for (const { name } of many) failing.broken.add(name);
  const other = reconciler([failing], [many]);
  const { problems } = await other.it.round({ signal });
  assert.equal(problems.length, 101);
  assert.equal(problems.at(-1), "and 900 more");
  assert.equal(other.log.lines.length, 5);
});

Deno.test("Reconciler says what is missing before it is written, and tells the wrong from the unseen", async () => {
  const events: string[] = [];
  const table = new MemoryTable([ours("stale")]);
  table.broken.add("b");
  const { apply } = table;
  table.apply = (changes) => {
    events.push("apply");
    return apply.call(table, changes);
  };
  const it = new Reconciler({
    name: "things",
    stages: [{ table, desired: () => [ours("a"), ours("b")] }],
    resyncMs: 50,
    log: recorder(),
    onPending: (reason) => events.push(reason),
    onReport: ({ problems, unseen }) => events.push(`${problems.length} ${unseen}`),
  });
  await it.round({ signal });
  assert.deepEqual(events, ["Not in place yet: add thing a=1", "apply", "apply", "1 false"]);
  events.length = 0;
  table.broken.clear();
  await it.round({ signal });
  events.length = 0;
  table.things.set("late", ours("late"));
  await it.round({ signal });
  assert.deepEqual(events, ["apply", "0 false"], "what is to go keeps nothing from working");
  table.listError = new Error("no answer");
  await it.round({ signal });
  assert.equal(events.at(-1), "1 true");
});

Deno.test("Reconciler changes nothing while the desired state is unknown or the list fails", async () => {
  const [a, b] = [new MemoryTable([ours("x")]), new MemoryTable([ours("y")])];
  b.listError = new Error("dump was interrupted");
  const { it } = reconciler([a, b], [undefined, []]);
  const report = await it.round({ signal });
  assert.equal(report.inSync, false);
  assert.deepEqual(report.problems, ["dump was interrupted"]);
  assert.equal(report.unseen, true);
  assert.equal(a.things.size + b.things.size, 2);
});

Deno.test("Reconciler.run() folds requests, repairs drift on resync and ends on abort", async () => {
  const table = new MemoryTable();
  const { it } = reconciler([table], [[ours("a")]]);
  const controller = new AbortController();
  const running = it.run({ signal: controller.signal });
  const until = async (condition: () => boolean) => {
    while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  await until(() => table.things.has("a"));
  table.things.delete("a");
  await until(() => table.things.has("a"));
  const lists = table.lists;
  for (let i = 0; i < 100; i++) it.request();
  await until(() => table.lists > lists);
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(table.lists <= lists + 3, `${table.lists - lists} rounds for 100 requests`);
  controller.abort(new Error("stop"));
  await assert.rejects(running, /stop/);
});

Deno.test("Reconciler looks only at the kinds asked for, and at all after anything else", async () => {
  const tables = (["link", "address", "route"] as const).map((id) => {
    const table = new MemoryTable();
    return Object.assign(table, { kind: { ...kind, id } });
  });
  const [links, addresses, routes] = tables as [MemoryTable, MemoryTable, MemoryTable];
  let prepared = false;
  const log = recorder();
  const it = new Reconciler({
    name: "things",
    resyncMs: 1e9,
    settleMs: 1,
    log,
    prepare: () => Promise.resolve(prepared),
    stages: tables.map((table) => ({
      table,
      desired: () => [ours(table.kind.id)],
      ...(table === links ? { carriesLater: true } : {}),
    })),
  });
  const looks = () => tables.map((table) => table.lists);
  const stop = new AbortController();
  const running = it.run({ signal: stop.signal });
  const settled = async (expected: number[]) => {
    for (let i = 0; i < 100 && String(looks()) !== String(expected); i++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(looks(), expected);
  };
  await settled([1, 1, 1]);

  it.request(["address"]);
  it.request(["route"]);
  await settled([1, 2, 2]);

  // A link made anew took with it what was on it.
  links.things.clear();
  it.request(["link"]);
  await settled([2, 3, 3]);

  prepared = true;
  it.request(["route"]);
  await settled([3, 4, 4]);
  prepared = false;

  it.request();
  it.request(["route"]);
  await settled([4, 5, 5]);

  // What went wrong is looked at again, whatever is asked for.
  routes.things.clear();
  routes.broken.add("route");
  it.request(["route"]);
  await settled([4, 5, 6]);
  routes.broken.clear();
  it.request(["address"]);
  await settled([5, 6, 7]);
  assert.equal(it.report.inSync, true);
  assert.equal(addresses.operations.length, 1);

  stop.abort(new Error("enough"));
  await assert.rejects(running, /enough/);
});

Deno.test("Reconciler tells what a person can do about a foreign object in the way", async () => {
  const table = new MemoryTable([{ name: "a", value: 7, owner: "them" }]);
  Object.assign(table, { kind: { ...kind, adviseConflict: () => "ask them to remove it" } });
  const { it } = reconciler([table], [[ours("a")]]);
  const { problems } = await it.round({ signal });
  assert.deepEqual(problems, [
    "Cannot set thing a=1: a=7 stands in its place and is not ours; ask them to remove it",
  ]);
});
