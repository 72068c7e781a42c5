import assert from "node:assert/strict";
import fc from "fast-check";
import type { Logger } from "../log.ts";
import type { KindId } from "../state/mod.ts";
import { diff } from "../../tests/support/diff.ts";
import { roundJson } from "../status/json.ts";
import { sentenceOf } from "../status/problems.ts";
import { Reconciler } from "./reconciler.ts";
import type { Change, FailedChange, Kind, Table } from "./table.ts";
import { Wanted } from "../state/wanted.ts";

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
  /** Called after a list was read, and before a change is made. */
  meanwhile = () => {};
  listError: Error | undefined;

  constructor(things: readonly Thing[] = []) {
    for (const thing of things) this.things.set(thing.name, thing);
  }

  list(): Promise<Thing[]> {
    this.lists++;
    if (this.listError) return Promise.reject(this.listError);
    const things = [...this.things.values()];
    return Promise.resolve().then(() => {
      this.meanwhile();
      return things;
    });
  }

  apply(changes: readonly Change<Thing>[]): Promise<FailedChange<Thing>[]> {
    this.meanwhile();
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
  assert.deepEqual(report, {
    ...{ inSync: true, changed: 4, problems: [], problemCount: 0, unseen: false },
    tables: report.tables.map((table) => ({
      ...table,
      ...{ kind: "route", desired: 1, actual: 1, problems: [], inSync: true },
    })),
  });
  const lines = log.lines.length;
  const again = await it.round({ signal });
  assert.deepEqual(roundJson(again), { ...roundJson(report), changed: 0 });
  assert.equal(operations.length, 4);
  assert.equal(log.lines.length, lines);
});

Deno.test("Reconciler goes on past failures and says each once", async () => {
  const table = new MemoryTable([{ name: "c", value: 9, owner: "them" }]);
  table.broken.add("a");
  const { it, log } = reconciler([table], [[ours("a"), ours("b"), ours("c")]]);
  const report = await it.round({ signal });
  assert.equal(report.inSync, false);
  assert.deepEqual(report.problems.map(({ code, object, message }) => [code, object, message]), [
    ["conflict", "thing c", "Cannot set thing c=1: c=9 stands in its place and is not ours"],
    ["write-failed", "thing a", "Cannot add thing a=1: it is broken"],
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
    const [{ code, message } = {}] = (await it.round({ signal })).problems;
    assert.deepEqual([code, message], ["read-failed", table.listError.message]);
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
  const report = await other.it.round({ signal });
  assert.equal(report.problems.length, 100);
  assert.equal(report.problemCount, 1_000);
  assert.equal(report.tables[0]!.problems.length, 100);
  assert.equal(roundJson(report).problems.at(-1), "and 900 more");
  assert.equal(other.log.lines.length, 11);
});

Deno.test("Reconciler tells of each Table what is wanted and found, and since when", async () => {
  const [a, b] = [new MemoryTable([ours("x"), ours("old")]), new MemoryTable()];
  const foreign = { name: "y", value: 1, owner: "them" };
  a.things.set("y", foreign);
  b.listError = new Error("no answer");
  const { it } = reconciler([a, b], [[ours("x"), ours("y", 2), ours("z")], [ours("x")]]);
  const [first, second] = (await it.round({ signal })).tables;
  assert.deepEqual([first!.desired, first!.inSync], [3, false]);
  assert.equal(second!.inSync, false);
  assert.deepEqual(first!.problems.map(({ code }) => code), ["conflict"]);
  assert.deepEqual(second!.problems.map(({ code }) => code), ["read-failed"]);
  assert.ok(first!.lastRoundMs! >= 0);
  assert.equal(second!.lastChangeAt, undefined);
  a.things.delete("y");
  const [mended] = (await it.round({ signal })).tables;
  assert.equal(mended!.inSync, true);
  assert.ok(mended!.since > first!.since && mended!.lastChangeAt! > first!.lastChangeAt!);
  const [later] = (await it.round({ signal })).tables;
  assert.deepEqual(
    [later!.since, later!.lastChangeAt, later!.actual],
    [mended!.since, mended!.lastChangeAt, 3],
  );
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
  assert.deepEqual(report.problems.map(sentenceOf), ["dump was interrupted"]);
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

Deno.test("Reconciler does not try at once again what fails as a whole", async () => {
  for (const trouble of ["prepare", "list", "apply", "unknown"] as const) {
    const table = new MemoryTable();
    table.broken.add("a");
    let rounds = 0;
    let isKnown = true;
    const it = new Reconciler({
      ...{ name: "things", resyncMs: 1e9, settleMs: 0, log: recorder() },
      stages: [{ table, desired: () => isKnown ? [ours("a")] : undefined }],
      prepare() {
        rounds++;
        return trouble === "prepare" ? Promise.reject(new Error("no")) : Promise.resolve();
      },
    });
    if (trouble !== "prepare") await it.round({ signal });
    // By now the object that failed is due again.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    if (trouble === "list") table.listError = new Error("no");
    if (trouble === "apply") table.apply = () => Promise.reject(new Error("no"));
    if (trouble === "unknown") isKnown = false;
    const stop = new AbortController();
    rounds = 0;
    const running = it.run({ signal: stop.signal });
    await new Promise((resolve) => setTimeout(resolve, 200));
    stop.abort(new Error("enough"));
    await assert.rejects(running, /enough/);
    assert.equal(rounds, 1, trouble);
  }
});

Deno.test("Reconciler desires in the same round what hangs on what the listing finds", async () => {
  const table = new MemoryTable();
  let found = false;
  table.meanwhile = () => found = true;
  const it = new Reconciler({
    name: "things",
    stages: [{ table, desired: () => found ? [ours("a")] : [] }],
    resyncMs: 1e6,
    log: recorder(),
  });
  const report = await it.round({ signal: new AbortController().signal });
  assert.deepEqual([report.inSync, report.changed, table.operations], [true, 1, ["add a"]]);
});

Deno.test("Reconciler lists only Tables asked for, due again, or with another desired list", async () => {
  const tables = (["link", "address", "route"] as const).map((id) => {
    const table = new MemoryTable();
    return Object.assign(table, { kind: { ...kind, id } });
  });
  const [links, addresses, routes] = tables as [MemoryTable, MemoryTable, MemoryTable];
  const desired = tables.map((table) => [ours(table.kind.id)]);
  const it = new Reconciler({
    name: "things",
    resyncMs: 1e9,
    settleMs: 1,
    log: recorder(),
    stages: tables.map((table, i) => ({
      table,
      desired: () => desired[i],
      ...(table === links ? { carriesLater: true } : {}),
    })),
  });
  const looks = () => tables.map((table) => table.lists);
  const stop = new AbortController();
  const running = it.run({ signal: stop.signal });
  const settled = async (expected: number[]) => {
    for (let i = 0; i < 400 && String(looks()) !== String(expected); i++) {
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

  desired[1] = [ours("address", 2)];
  it.desiredChanged({ listing: false });
  await settled([2, 4, 3]);

  it.request();
  it.request(["route"]);
  await settled([3, 5, 4]);

  // What went wrong is tried again in its own time, whatever else is asked for.
  routes.things.clear();
  routes.broken.add("route");
  it.request(["route"]);
  await settled([3, 5, 5]);
  it.request(["address"]);
  await settled([3, 6, 5]);
  assert.equal(it.report.inSync, false);
  routes.broken.clear();
  await settled([3, 6, 6]);
  assert.equal(it.report.inSync, true);
  assert.equal(addresses.operations.length, 2);

  stop.abort(new Error("enough"));
  await assert.rejects(running, /enough/);
});

function wanting(...things: Thing[]): Wanted<Thing> {
  const wanted = new Wanted<Thing>(kind.key);
  things.forEach((thing) => wanted.add(thing));
  return wanted;
}

function follower(table: MemoryTable, wanted: Wanted<Thing>, clock = { ms: 0 }) {
  const stages = [{ table, desired: () => wanted }];
  return new Reconciler({
    ...{ name: "things", stages, resyncMs: 1e9, settleMs: 0, log: recorder() },
    now: () => clock.ms,
  });
}

function news(object: Thing, { gone, kind = "route" }: { gone: boolean; kind?: KindId }) {
  return { kind, key: object.name, object, gone };
}

const partly = { signal, kinds: new Set<never>() };

Deno.test("Reconciler writes what the journal tells, without a list", async () => {
  const table = new MemoryTable([ours("stale")]);
  const wanted = wanting(ours("a"), ours("b"));
  const it = follower(table, wanted);
  await it.round(partly);
  assert.deepEqual(table.operations.splice(0), ["add a", "add b", "remove stale"]);
  wanted.delete(ours("a"));
  wanted.delete(ours("b"));
  wanted.add(ours("b", 2));
  wanted.add(ours("c"));
  assert.equal((await it.round(partly)).changed, 3);
  assert.deepEqual(table.operations.splice(0), ["replace b", "add c", "remove a"]);
  wanted.delete(ours("c"));
  wanted.add(ours("c"));
  const report = await it.round(partly);
  assert.deepEqual(table.operations, [], "it is the same as before");
  assert.equal(table.lists, 1);
  const [{ kind, desired: count, actual, problems } = {}] = report.tables;
  assert.deepEqual([kind, count, actual, problems], ["route", 2, 2, []]);
});

Deno.test("Reconciler writes an object anew that is said to have gone, and lists after other news", async () => {
  const table = new MemoryTable();
  const wanted = wanting(ours("a"), ours("b"));
  const it = follower(table, wanted);
  await it.round(partly);
  table.operations.length = 0;

  assert.equal(it.observe(news(ours("a"), { gone: false })), false, "an echo");
  assert.equal(it.observe(news(ours("x"), { gone: true })), false, "none of ours");
  assert.equal(it.observe(news({ ...ours("x"), owner: "them" }, { gone: false })), false);
  assert.equal(it.observe(news(ours("a"), { gone: true, kind: "link" })), false, "no such Table");
  await it.round(partly);
  assert.equal(table.lists, 1);

  table.things.delete("a");
  assert.equal(it.observe({ kind: "route", key: "a", gone: true }), true);
  await it.round(partly);
  assert.deepEqual(table.operations.splice(0), ["add a"]);
  assert.equal(table.lists, 1);
  assert.deepEqual(it.report.tables[0]?.actual, 2);

  // An old event about what is not wanted any more: the last write may be younger.
  assert.equal(it.observe(news(ours("b"), { gone: true })), true);
  wanted.delete(ours("b"));
  await it.round(partly);
  assert.deepEqual(table.operations.splice(0), ["remove b"]);

  for (
    const [thing, gone] of [
      [ours("a", 7), false], // changed
      [ours("a", 7), true], // another than we know has gone
      [ours("stray"), false],
    ] as const
  ) {
    const { lists } = table;
    assert.equal(it.observe(news(thing, { gone })), true);
    await it.round(partly);
    assert.equal(table.lists, lists + 1);
  }
});

Deno.test("Reconciler tries what failed again by itself, each in its own time, and lists before", async () => {
  const clock = { ms: 0 };
  const table = new MemoryTable();
  table.broken.add("a");
  const wanted = wanting(ours("a"), ours("b"));
  const it = follower(table, wanted, clock);
  await it.round(partly);
  assert.deepEqual([table.lists, it.report.inSync], [1, false]);
  wanted.add(ours("c"));
  await it.round(partly);
  assert.deepEqual([table.lists, it.report.problems.length], [1, 1], "not yet due");
  assert.ok(table.things.has("c"));
  clock.ms += 1_001;
  table.broken.add("d");
  wanted.add(ours("d"));
  await it.round(partly);
  assert.deepEqual([table.lists, it.report.problems.length], [2, 2]);
  table.broken.clear();
  clock.ms += 1_001; // "a" has failed twice, "d" once
  await it.round(partly);
  assert.ok(table.things.has("d"));
  clock.ms += 1_000;
  await it.round(partly);
  assert.deepEqual([it.report.inSync, table.things.size], [true, 4]);
});

Deno.test("Reconciler comes to the same by partial rounds as by full ones, whatever happens", async () => {
  const name = fc.constantFrom("a", "b", "c", "d");
  const value = fc.nat(2);
  const step = fc.oneof(
    fc.record({ act: fc.constantFrom("want"), name, value }),
    fc.record({ act: fc.constantFrom("leave", "delete", "break", "mend"), name, value }),
    fc.record({ act: fc.constantFrom("put", "put theirs"), name, value }),
    fc.record({ act: fc.constantFrom("round", "busy round", "news", "loss"), name, value }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const clock = { ms: 0 };
      const table = new MemoryTable();
      const wanted = wanting();
      const it = follower(table, wanted, clock);
      /** Events on their way. */
      const underway: { readonly thing: Thing; readonly gone: boolean }[] = [];
      const tell = () =>
        underway.splice(0).forEach(({ thing, gone }) => it.observe(news(thing, { gone })));
      const external = (thing: Thing, gone: boolean) => {
        if (gone) table.things.delete(thing.name);
        else table.things.set(thing.name, thing);
        underway.push({ thing, gone });
      };
      for (const { act, name, value } of steps) {
        const present = wanted.get(name);
        const there = table.things.get(name);
        if ((act === "want" || act === "leave") && present) wanted.delete(present);
        if (act === "want") wanted.add(ours(name, value));
        if (act === "delete" && there) external(there, true);
        // A Table does not hold two of one key: the one before goes with its event.
        if (act.startsWith("put")) {
          external({ name, value, owner: act === "put" ? "us" : "them" }, false);
        }
        if (act === "break") table.broken.add(name);
        if (act === "mend") table.broken.delete(name);
        if (act === "round") await it.round(partly);
        if (act === "busy round") {
          table.meanwhile = () => {
            table.meanwhile = () => {};
            const found = table.things.get(name);
            if (found) external(found, true);
            tell();
          };
          await it.round(partly);
          table.meanwhile = () => {};
        }
        // Events come late, but in order; those of an overrun are lost, which is told.
        if (act === "news") tell();
        if (act === "loss" && underway.length > 0) {
          underway.length = 0;
          await it.round({ signal });
        }
      }
      table.broken.clear();
      tell();
      // Echoes of own writes come as well, and change nothing that is right.
      for (let i = 0; i < 8; i++) {
        await it.round(partly);
        clock.ms += 40_000;
      }
      const lists = table.lists;
      for (const thing of table.things.values()) it.observe(news(thing, { gone: false }));
      await it.round(partly);
      const theirs = (thing: Thing | undefined) => thing?.owner === "them";
      const conflicts = [...wanted].filter((each) => theirs(table.things.get(each.name)));
      assert.equal(it.report.inSync, conflicts.length === 0);
      assert.ok(table.lists === lists || conflicts.length > 0);
      for (const each of wanted) {
        if (!conflicts.includes(each)) assert.deepEqual(table.things.get(each.name), each);
      }
      for (const thing of table.things.values()) {
        assert.ok(theirs(thing) || wanted.get(thing.name), `${thing.name} is a leftover`);
      }
      const { writes, removals } = diff(kind, [...wanted], [...table.things.values()]);
      assert.deepEqual([writes, removals], [[], []], "a full round finds nothing to do");
    }),
    { numRuns: 300 },
  );
});

Deno.test("Reconciler tells what an operator can do about a foreign object in the way", async () => {
  const table = new MemoryTable([{ name: "a", value: 7, owner: "them" }]);
  Object.assign(table, { kind: { ...kind, adviseConflict: () => "ask them to remove it" } });
  const { it } = reconciler([table], [[ours("a")]]);
  const { problems } = await it.round({ signal });
  assert.deepEqual(problems.map(sentenceOf), [
    "Cannot set thing a=1: a=7 stands in its place and is not ours; ask them to remove it",
  ]);
});
