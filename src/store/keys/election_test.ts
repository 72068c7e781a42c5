import fc from "fast-check";
import assert from "node:assert/strict";
import { MemoryRegistry, MemoryStore } from "../../../tests/fakes/memory_registry.ts";
import { recordLog } from "../../../tests/support/log.ts";
import { ELECTION_TTL_SECONDS, KeyElection, type KeyElectionOptions } from "./election.ts";
import type { Term } from "../election.ts";
import { StoreError } from "../errors.ts";
import type { KeySpace } from "./key_space.ts";

const TTL = ELECTION_TTL_SECONDS;
const FOLDER = "ali-vpc/election";
const KEY = "writer";
const { signal } = new AbortController();

/** A store, and a clock for it and for all candidates, that is moved by hand. */
class World implements AsyncDisposable {
  readonly store = new MemoryStore();
  readonly keys = this.store.area(FOLDER);
  readonly candidates: Candidate[] = [];
  milliseconds = 0;

  add(name: string, more: Partial<KeyElectionOptions> = {}): Candidate {
    const candidate = new Candidate(this, name, more);
    this.candidates.push(candidate);
    return candidate;
  }

  /** Those whose term would let them write now, by asking. */
  async writers(): Promise<string[]> {
    const confirmed: string[] = [];
    for (const { name, election } of this.candidates) {
      const isSure = await election.term?.confirm({ signal }).then(() => true, () => false);
      if (isSure) confirmed.push(name);
    }
    return confirmed;
  }

  /** Lets time pass for all, in steps, with what it brings about. */
  async pass(seconds: number, stepMs = 500): Promise<void> {
    for (let left = seconds * 1_000; left > 0; left -= stepMs) {
      const ms = Math.min(left, stepMs);
      this.milliseconds += ms;
      this.store.advance(ms / 1_000);
      await settle();
    }
  }

  /** Lets time pass until `condition` holds; answers the seconds it took. */
  async until(condition: () => boolean, atMostSeconds: number): Promise<number> {
    await settle();
    for (let seconds = 0; seconds <= atMostSeconds; seconds += 0.5) {
      if (condition()) return seconds;
      await this.pass(0.5);
    }
    assert.fail(`not within ${atMostSeconds} s: ${condition}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const candidate of this.candidates) await candidate.stop();
  }
}

class Candidate {
  readonly registry: MemoryRegistry;
  readonly election: KeyElection;
  readonly #recorded = recordLog();
  readonly lines = this.#recorded.lines;
  changes = 0;
  /** How far this host's clocks have gone apart from the world's. */
  readonly skew = { wallMs: 0, monotonicMs: 0 };
  readonly #controller = new AbortController();
  #running: Promise<void> | undefined;

  constructor(world: World, readonly name: string, more: Partial<KeyElectionOptions>) {
    this.registry = new MemoryRegistry(world.store);
    this.election = new KeyElection({
      space: this.registry.space(FOLDER),
      key: KEY,
      holder: name,
      log: this.#recorded.log,
      now: () => 1e12 + world.milliseconds + this.skew.wallMs,
      monotonicNow: () => world.milliseconds + this.skew.monotonicMs,
      tickMs: 1,
      ...more,
    });
    this.election.leadership.subscribe(() => this.changes++);
  }

  /** The calls since it was asked last. */
  takeCalls(): string[] {
    return this.registry.calls.splice(0).map((call) => call.replace(` ${FOLDER}/`, " "));
  }

  start(): this {
    this.#running = this.election.run({ signal: this.#controller.signal });
    return this;
  }

  /** Ends as a crash does: the key stays. */
  async stop(): Promise<void> {
    this.#controller.abort(new Error("stopped"));
    await this.#running;
  }
}

/** Lets everything run that has no time to wait for. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 6));
}

async function startHolder(world: World, name: string, more: Partial<KeyElectionOptions> = {}) {
  const candidate = world.add(name, more).start();
  await world.until(() => candidate.election.term !== undefined, 3);
  return { candidate, election: candidate.election, term: candidate.election.term! };
}

/** `space`, with some of its operations replaced. */
function altered(space: KeySpace, changes: Partial<KeySpace>): KeySpace {
  return new Proxy(space, {
    get(target, name) {
      if (name in changes) return Reflect.get(changes, name);
      const member = Reflect.get(target, name);
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

Deno.test("Election has one holder, whom all know", async () => {
  await using world = new World();
  for (const name of ["a", "b", "c"]) world.add(name).start();
  const { candidates } = world;
  await settle();
  assert.deepEqual(candidates.map(({ election }) => election.leadership.value?.holder), [
    undefined,
    undefined,
    undefined,
  ]);
  await world.until(() => candidates.some(({ election }) => election.term !== undefined), 3);
  const holder = world.keys.get(KEY)!;
  assert.equal(holder.expires, true);
  for (const { election, name, changes } of candidates) {
    assert.equal(election.leadership.value?.holder, holder.value);
    assert.equal(election.vacantMs, 0);
    assert.equal(election.term?.id, name === holder.value ? holder.version : undefined);
    assert(changes >= 1);
  }
  assert.deepEqual(await world.writers(), [holder.value]);
});

Deno.test("Election costs the store one renewal per third of the TTL, and followers nothing", async () => {
  await using world = new World();
  const { candidate: holder, term } = await startHolder(world, "a");
  const followers = ["b", "c", "d"].map((name) => world.add(name).start());
  await world.pass(1);
  for (const { election } of followers) assert.equal(election.leadership.value?.holder, "a");
  for (const each of [holder, ...followers]) each.takeCalls();
  await world.pass(8 * TTL);
  const calls = holder.takeCalls();
  assert.deepEqual(new Set(calls), new Set([`renew ${KEY}`]));
  assert(calls.length >= 22 && calls.length <= 24, `${calls.length} renewals`);
  for (const follower of followers) assert.deepEqual(follower.takeCalls(), []);
  assert.equal(term.signal.aborted, false);
  assert.equal(holder.changes, 2, "vacant, then held");
});

Deno.test("Election elects another leader once the time of a crashed one is up", async () => {
  await using world = new World();
  const { candidate, term } = await startHolder(world, "a");
  const next = world.add("b").start();
  await world.pass(1);
  await candidate.stop();
  assert.equal(term.signal.aborted, true);
  await assert.rejects(term.confirm({ signal }), /term is over: the election is left/);
  assert.equal(world.keys.get(KEY)?.value, "a", "the key is left for a restart");
  const seconds = await world.until(() => next.election.term !== undefined, TTL + 5);
  assert(seconds > TTL / 2, `${seconds} s: the key had its time`);
  assert.notEqual(next.election.term!.id, term.id);
});

Deno.test("Election says for how long there has been no leader", async () => {
  await using world = new World();
  const follower = world.add("b");
  follower.election.candidate = false;
  assert.equal(follower.election.vacantMs, undefined);
  follower.start();
  await settle();
  assert.equal(follower.election.vacantMs, 0);
  await world.pass(30);
  assert.equal(follower.election.vacantMs, 30_000);
  follower.registry.disconnect();
  await world.pass(10);
  assert.equal(follower.election.vacantMs, 40_000, "what was known last counts on");
  follower.registry.reconnect();
  const { candidate } = await startHolder(world, "a");
  assert.equal(follower.election.vacantMs, 0);
  assert.equal(follower.election.leadership.value?.holder, "a");
  follower.registry.disconnect();
  await candidate.stop();
  await world.pass(2 * TTL);
  assert.equal(follower.election.leadership.value?.holder, "a", "as far as is known");
  follower.registry.reconnect();
  await world.until(() => follower.election.leadership.value?.holder === undefined, 1);
  assert.deepEqual(follower.takeCalls(), []);
});

Deno.test("Term.confirm() finds the term over after a pause between the read and its answer", async () => {
  await using world = new World();
  let answer = Promise.resolve();
  const inner = new MemoryRegistry(world.store).space(FOLDER);
  const space = altered(inner, {
    async get(key, options) {
      const entry = await inner.get(key, options);
      await answer;
      return entry;
    },
  });
  const rival = world.add("b");
  // Nothing of a stopped process runs: neither its watch nor its timers.
  const { election } = world.add("a", { space, tickMs: 1e6 });
  const term = await election.tryOnce({ signal });
  assert(term !== undefined);
  await term.confirm({ signal });

  const resumed = Promise.withResolvers<void>();
  answer = resumed.promise;
  const confirmed = assert.rejects(
    term.confirm({ signal }),
    /term is over: it could not be renewed/,
  );
  await settle(); // the read is done, and says that the key is ours
  rival.start();
  await world.until(() => rival.election.term !== undefined, 2 * TTL);
  resumed.resolve();
  await confirmed;
  assert.equal(term.signal.aborted, true);
  assert.equal(election.term, undefined);
});

Deno.test("Term lasts from the sending of a renewal, not from its answer", async () => {
  await using world = new World();
  const registry = new MemoryRegistry(world.store);
  const answered = Promise.withResolvers<void>();
  const inner = registry.space(FOLDER);
  const space = altered(inner, {
    async renew(...args) {
      const entry = await inner.renew(...args);
      await answered.promise;
      return entry;
    },
  });
  const { term } = await startHolder(world, "a", { space });
  const sentAfter = await world.until(
    () => registry.calls.some((call) => /^renew/.test(call)),
    TTL,
  );
  assert(sentAfter <= TTL / 3);
  registry.disconnect(); // there is no further one
  await world.pass(TTL / 2);
  answered.resolve();
  await world.pass(TTL / 2 - 1);
  assert.equal(term.signal.aborted, false, "the renewal counts");
  await world.pass(1.5);
  assert.equal(term.signal.aborted, true);
});

Deno.test("Term.confirm() asks the store each time, and for time that is left", async () => {
  await using world = new World();
  const { candidate, term } = await startHolder(world, "a");
  candidate.takeCalls();
  await term.confirm({ signal });
  await term.confirm({ signal, marginMs: TTL * 1_000 });
  assert.deepEqual(candidate.takeCalls(), [`get ${KEY}`, `get ${KEY}`]);

  candidate.registry.failNext("get");
  await assert.rejects(term.confirm({ signal }), /Cannot reach the store/);
  await term.confirm({ signal });
  const reason = new Error("enough");
  await assert.rejects(term.confirm({ signal: AbortSignal.abort(reason) }), reason);

  // Renewals fail, reads do not.
  for (let i = 0; i < 50; i++) candidate.registry.failNext("renew");
  await world.pass(TTL - 4);
  await assert.rejects(term.confirm({ signal }), /4000 ms are left of the term, and 5000/);
  await term.confirm({ signal, marginMs: 3_000 });
  assert.equal(term.signal.aborted, false);
});

Deno.test("Term ends with its time by either clock, and a host whose clock jumped comes back", async () => {
  for (const clock of ["wallMs", "monotonicMs"] as const) {
    await using world = new World();
    const { candidate, term } = await startHolder(world, "a");
    candidate.skew[clock] += 3_600_000;
    assert.equal(term.signal.aborted, true, "seen without a timer");
    assert.equal(candidate.election.term, undefined);
    await assert.rejects(term.confirm({ signal }), /could not be renewed in time/);
    assert(await world.until(() => candidate.election.term !== undefined, 3) <= 0.5);
    assert.notEqual(candidate.election.term!.id, term.id);
    assert.match(
      candidate.lines.join("\n"),
      /no longer the \S*writer: it could not be renewed in time/,
    );
  }
});

Deno.test("Term goes on when the time of day is set back, and still ends in time", async () => {
  await using world = new World();
  const { candidate, term } = await startHolder(world, "a");
  candidate.skew.wallMs -= 3_600_000;
  await world.pass(2 * TTL);
  assert.equal(candidate.election.term, term);
  candidate.registry.disconnect();
  await world.pass(TTL - 5.5);
  assert.equal(term.signal.aborted, false);
  await world.pass(6);
  assert.equal(term.signal.aborted, true);
});

Deno.test("Election survives short outages, and in a long one the lead goes to a candidate that is reachable", async () => {
  await using world = new World();
  const { candidate, term } = await startHolder(world, "a");
  const rival = world.add("b").start();
  for (let i = 0; i < 3; i++) candidate.registry.failNext("renew", { applied: i === 1 });
  await world.pass(TTL);
  candidate.registry.disconnect();
  await world.pass(TTL / 2);
  candidate.registry.reconnect();
  await world.pass(TTL);
  assert.equal(candidate.election.term, term);

  candidate.registry.disconnect();
  const seconds = await world.until(() => rival.election.term !== undefined, TTL + 5);
  assert(seconds > TTL / 2, `${seconds} s`);
  assert.equal(term.signal.aborted, true);
  assert.equal(candidate.election.leadership.value?.holder, undefined, "it knows of nobody");
  assert(candidate.election.vacantMs! > 0);
  const log = candidate.lines.join("\n");
  assert.match(log, /Cannot take part in the election of the writer: Cannot reach the store/);
  candidate.registry.reconnect();
  await world.pass(6);
  assert.equal(candidate.election.leadership.value?.holder, "b");
  assert.match(candidate.lines.join("\n"), /again after/);
  assert.deepEqual(await world.writers(), ["b"]);
});

Deno.test("Election does not wait for its own key when the answer to its creation was lost", async () => {
  await using world = new World();
  const candidate = world.add("a");
  candidate.registry.failNext("create", { applied: true });
  candidate.start();
  const seconds = await world.until(() => candidate.election.term !== undefined, TTL);
  assert(seconds < 6, `${seconds} s`);
  assert.equal(candidate.election.term!.id, world.keys.get(KEY)!.version);
  await world.pass(2 * TTL);
  assert.deepEqual(await world.writers(), ["a"]);
});

Deno.test("Term ends when somebody writes the key by hand", async (t) => {
  await t.step("with an end: they lead until then", async () => {
    await using world = new World();
    const { election, term } = await startHolder(world, "a");
    world.keys.put(KEY, "somebody", { ttlSeconds: 60 });
    await settle();
    assert.equal(term.signal.aborted, true);
    assert.match(String(term.signal.reason), /has been changed by somebody else/);
    assert.equal(election.leadership.value?.holder, "somebody");
    assert.equal(election.vacantMs, 0);
    await world.pass(59);
    assert.equal(election.term, undefined);
    await world.until(() => election.term !== undefined, 4);
  });

  await t.step("without an end: nobody keeps it, and it is replaced", async () => {
    await using world = new World();
    const { candidate, election, term } = await startHolder(world, "a");
    world.keys.put(KEY, "somebody");
    await settle();
    assert.equal(term.signal.aborted, true);
    assert.equal(election.leadership.value?.holder, undefined);
    await world.until(() => election.term !== undefined, 4);
    assert.equal(world.keys.get(KEY)?.expires, true);
    assert.match(candidate.lines.join("\n"), /writer was written by hand, without an end/);
  });

  await t.step("our own text, which is not our writing", async () => {
    await using world = new World();
    const { election, term } = await startHolder(world, "a");
    world.keys.put(KEY, "a", { ttlSeconds: 60 });
    await world.pass(1);
    assert.equal(term.signal.aborted, true);
    assert.equal(election.leadership.value?.holder, "a");
    assert.equal(election.term, undefined);
  });
});

Deno.test("Term ends when somebody deletes the key, and confirm() knows before the watch", async () => {
  await using world = new World();
  const { candidate, election, term } = await startHolder(world, "a");
  const confirmed = term.confirm({ signal });
  world.keys.delete(KEY);
  await assert.rejects(confirmed, /term is over: the key has been deleted/);
  assert.equal(term.signal.aborted, true);
  await world.until(() => election.term !== undefined, 4);

  const second = election.term!;
  world.keys.delete(KEY);
  await settle();
  assert.equal(second.signal.aborted, true, "seen by the watch");

  await world.until(() => election.term !== undefined, 4);
  const third = election.term!;
  candidate.registry.failNext("get");
  world.keys.delete(KEY);
  await settle();
  assert.match(String(third.signal.reason), /seems to have gone, and the store cannot be asked/);
});

Deno.test("resign() gives the lead up at once, and keeps away for the pause", async () => {
  await using world = new World();
  const { candidate, election, term } = await startHolder(world, "a");
  await election.resign({ signal, pauseMs: 30_000 });
  assert.equal(term.signal.aborted, true);
  assert.equal(world.keys.get(KEY), undefined);
  assert.equal(election.leadership.value?.holder, undefined);
  assert.equal(await election.tryOnce({ signal }), undefined);
  await world.pass(29);
  assert.equal(election.term, undefined);
  assert.equal(election.vacantMs, 29_000);
  await world.until(() => election.term !== undefined, 4);

  const other = world.add("b").start();
  await world.pass(1);
  await election.resign({ signal, pauseMs: 60_000 });
  assert(await world.until(() => other.election.term !== undefined, 3) <= 2.5);

  // What cannot be deleted expires.
  other.registry.disconnect();
  await assert.rejects(
    other.election.resign({ signal, pauseMs: 60_000 }),
    /Cannot reach the store/,
  );
  assert.equal(other.election.term, undefined);
  other.registry.reconnect();
  await world.pass(TTL + 1);
  assert.equal(world.keys.get(KEY), undefined);
  assert.equal(candidate.election.term, undefined, "it pauses still");
});

Deno.test("resign() of one who has stopped still deletes the key", async () => {
  await using world = new World();
  const { candidate, election } = await startHolder(world, "a");
  await candidate.stop();
  assert.equal(world.keys.get(KEY)?.value, "a");
  await election.resign({ signal, pauseMs: 0 });
  assert.equal(world.keys.get(KEY), undefined);
});

Deno.test("resign() leaves the key of another alone", async () => {
  await using world = new World();
  await startHolder(world, "a");
  const other = world.add("b").start();
  await settle();
  await other.election.resign({ signal, pauseMs: 0 });
  assert.equal(world.keys.get(KEY)?.value, "a");
});

Deno.test("resign() holds while a campaign is under way", async () => {
  await using world = new World();
  const inner = new MemoryRegistry(world.store).space(FOLDER);
  const resigned: Promise<void>[] = [];
  const space = altered(inner, {
    create(...args) {
      resigned.push(election.resign({ signal, pauseMs: 5_000 }));
      return inner.create(...args);
    },
  });
  const { election } = world.add("a", { space });
  assert.equal(await election.tryOnce({ signal }), undefined);
  assert.equal(resigned.length, 1);
  await Promise.all(resigned);
  assert.equal(election.term, undefined);
  assert.equal(world.keys.get(KEY), undefined);
});

Deno.test("Term goes on when the watch tells late of what was before it", async () => {
  await using world = new World();
  const inner = new MemoryRegistry(world.store).space(FOLDER);
  let told = Promise.resolve();
  const space = altered(inner, {
    async *watch(options) {
      for await (const update of inner.watch(options)) {
        await told;
        yield update;
      }
    },
  });
  const { election } = world.add("a", { space }).start();
  await settle();
  const late = Promise.withResolvers<void>();
  told = late.promise;
  world.keys.put(KEY, "b", { ttlSeconds: 60 });
  world.keys.put(KEY, "a", { ttlSeconds: 60 }); // by the name of this host, long ago
  world.keys.delete(KEY);
  const term = await election.tryOnce({ signal });
  assert(term !== undefined);
  late.resolve();
  await world.pass(1);
  assert.equal(term.signal.aborted, false);
  assert.equal(election.term, term);
  assert.equal(election.leadership.value?.holder, "a");
});

Deno.test("Term.confirm() waits for a renewal under way, which may change the revision", async () => {
  await using world = new World();
  const inner = new MemoryRegistry(world.store).space(FOLDER);
  let answer = Promise.resolve();
  let renewals = 0;
  const space = altered(inner, {
    async renew(seen, lifetimeSeconds, options) {
      const entry = await inner.update(seen, "a", { ...options, lifetimeSeconds });
      renewals++;
      await answer;
      return entry;
    },
  });
  const { election, term } = await startHolder(world, "a", { space });
  await world.pass(2 * TTL);
  assert.equal(election.term, term);
  const answered = Promise.withResolvers<void>();
  answer = answered.promise;
  const before = renewals;
  await world.until(() => renewals > before, TTL);
  const confirmed = term.confirm({ signal });
  await settle();
  answered.resolve();
  await confirmed;
  assert.notEqual(world.keys.get(KEY)?.version, term.id);
});

Deno.test("Election without candidacy only follows, and resigns if it leads", async () => {
  await using world = new World();
  const { candidate, election, term } = await startHolder(world, "a");
  election.candidate = false;
  assert.equal(term.signal.aborted, true);
  await settle();
  assert.equal(world.keys.get(KEY), undefined);
  candidate.takeCalls();
  await world.pass(10);
  assert.equal(await election.tryOnce({ signal }), undefined);
  assert.deepEqual(candidate.takeCalls(), []);
  election.candidate = true;
  await world.until(() => election.term !== undefined, 3);
});

Deno.test("Election takes over the term of its former run at once", async () => {
  await using world = new World();
  const { candidate, term } = await startHolder(world, "a");
  const rival = world.add("b").start();
  await world.pass(1);
  await candidate.stop();
  const restarted = world.add("a").start();
  assert(await world.until(() => restarted.election.term !== undefined, 3) <= 0.5);
  assert.notEqual(restarted.election.term!.id, term.id);
  assert.equal(rival.election.leadership.value?.holder, "a");
  assert.equal(rival.election.vacantMs, 0);

  await restarted.stop();
  const third = world.add("a");
  assert.notEqual(await third.election.tryOnce({ signal }), undefined, "without following first");
  assert.equal(await third.election.tryOnce({ signal }), third.election.term);
  assert.equal(await rival.election.tryOnce({ signal }), undefined);
  await third.election.resign({ signal, pauseMs: 0 });
});

Deno.test("Election of two processes with one name does not go to and fro between them", async () => {
  await using world = new World();
  const { candidate, term } = await startHolder(world, "a");
  const twin = world.add("a").start();
  await world.until(() => twin.election.term !== undefined, 3);
  assert.equal(term.signal.aborted, true);
  const { id } = twin.election.term!;
  await world.pass(2 * TTL);
  assert.equal(twin.election.term?.id, id);
  assert.equal(candidate.election.term, undefined);
});

Deno.test("Election of many candidates does not bring all of them to the store at once", async () => {
  await using world = new World();
  const { candidate } = await startHolder(world, "first");
  const others = Array.from({ length: 200 }, (_, i) => world.add(`host-${i}`).start());
  await settle();
  await candidate.election.resign({ signal, pauseMs: 600_000 });
  await world.pass(3, 10);
  const winners = others.filter(({ election }) => election.term !== undefined);
  assert.equal(winners.length, 1);
  const calls = others.flatMap((other) => other.takeCalls());
  assert(calls.length < 40, `${calls.length} calls`);
});

Deno.test("Election does not ask a store that denies it again and again", async () => {
  await using world = new World();
  const candidate = world.add("a");
  const error = new StoreError("denied", "Cannot use etcd: permission denied");
  for (let i = 0; i < 100; i++) candidate.registry.failNext("get", { error });
  candidate.start();
  await world.pass(300, 1_000);
  const calls = candidate.takeCalls().length;
  assert(calls >= 5 && calls <= 14, `${calls} calls`);
  assert.equal(candidate.lines.length, 1);
  assert.match(candidate.lines[0]!, /Cannot take part .* permission denied; trying again/);
});

Deno.test("Election never lets two write at a time, whatever happens", async () => {
  const names = ["a", "b", "c"];
  const event = fc.record({
    seconds: fc.constantFrom(0.5, 1, 4, 8, 20),
    who: fc.nat(names.length - 1),
    what: fc.constantFrom(
      "nothing",
      "disconnect",
      "reconnect",
      "crash and restart",
      "renewal lost",
      "creation lost",
      "deleted",
      "written",
      "jump",
      "resign",
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 5, maxLength: 15 }), async (events) => {
      await using world = new World();
      let running = names.map((name) => world.add(name).start());
      const ended: Term[] = [];
      for (const { seconds, who, what } of events) {
        const { registry, election, skew } = running[who]!;
        const { term } = election;
        switch (what) {
          case "disconnect":
            registry.disconnect();
            break;
          case "reconnect":
            registry.reconnect();
            break;
          case "crash and restart": {
            await running[who]!.stop();
            if (term !== undefined) ended.push(term);
            const restarted = world.add(names[who]!).start();
            running = running.with(who, restarted);
            break;
          }
          case "renewal lost":
            registry.failNext("renew", { applied: true });
            break;
          case "creation lost":
            registry.failNext("create", { applied: true });
            break;
          case "deleted":
            world.keys.delete(KEY);
            break;
          case "written":
            world.keys.put(KEY, "somebody", { ttlSeconds: 5 });
            break;
          case "jump":
            skew.wallMs += 3_600_000;
            break;
          case "resign":
            await election.resign({ signal, pauseMs: 2_000 }).catch(() => {});
            break;
        }
        await world.pass(seconds, 500);
        const writers = await world.writers();
        assert(writers.length <= 1, `${writers} at once`);
        if (writers.length === 1) assert.equal(world.keys.get(KEY)?.value, writers[0]);
        for (const term of ended) assert.equal(term.signal.aborted, true);
      }
      for (const { registry } of running) registry.reconnect();
      await world.pass(TTL + 10);
      assert.equal((await world.writers()).length, 1, "once all is well somebody holds it");
    }),
    { numRuns: 5 },
  );
});
