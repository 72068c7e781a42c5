/**
 * Clocks that are wrong or jump, and processes and machines that are suspended at each step of an
 * election and of the writer's work: terms never overlap, no entry goes before its grace is over,
 * and hosts whose clocks are near enough stay ready.
 *
 * @module
 */
import { KeyElection } from "../../src/store/keys/election.ts";
import { delay } from "../../src/util/time.ts";
import { MemoryRegistry, MemoryStore } from "../fakes/memory_registry.ts";
import { TimedProcess, VirtualTime } from "../support/virtual_time.ts";
import { type Campaign, CampaignFailure, seededRandom } from "./campaign.ts";
import {
  clock,
  type Cluster,
  type Judged,
  shuffled,
  tellInWorld,
  type World,
} from "./cloud_world.ts";
import { SILENT } from "../support/log.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** The cloud takes a request whose time is off by less than 15 minutes. */
const NEAR_MS = 14 * MINUTE_MS;
const SKEWS_MS = [0, NEAR_MS, -NEAR_MS, DAY_MS, -DAY_MS];

const CANDIDATES = 4;
/** How long the story of one election is. */
const ELECTION_MS = 300_000;
const GRACE_SECONDS = 600;

export const campaign: Campaign = {
  summary: "wrong and jumping clocks, suspension at each step of election and credentials",
  async run({ long, seed, say, signal }) {
    const violations: string[] = [];
    let confirmed = 0;
    let terms = 0;
    const steps = long ? 60 : 8;
    for (let step = 0; step < steps; step++) {
      const outcome = await runElection({ step, seed: seed + step }, signal);
      violations.push(...outcome.violations.map((each) => `election ${step}: ${each}`));
      confirmed += outcome.confirmed;
      terms += outcome.terms;
    }
    say(`elections: ${terms} terms, ${confirmed} confirmations`);
    let suspensions = 0;
    const stories = long ? 12 : 1;
    for (let n = 0; n < stories; n++) {
      const outcome = await runStory({ seed: seed + n, hours: long ? 4 : 1 }, signal);
      violations.push(...outcome.violations.map((each) => `story ${n}: ${each}`));
      suspensions += outcome.events;
      say(`story ${n}: ${outcome.violations.length} violations, ${outcome.removals} removals`);
    }
    if (violations.length > 0) throw new CampaignFailure("clocks", violations);
    return {
      "steps of the election": steps,
      terms,
      "confirmed writes": confirmed,
      "clock jumps and suspensions": suspensions,
    };
  },
};

/**
 * A clock that was set back just before and a machine that stands still together hide from a
 * process that time has passed: nothing can tell it.
 */
const APART_MS = 40_000;

/** One who stands for election, on its own clock. */
class Candidate {
  /** When its time of day was set, on the right clock. */
  jumpedAtMs = -Infinity;
  readonly process = new TimedProcess();
  readonly registry: MemoryRegistry;
  readonly election: KeyElection;
  /** Called at each step that it takes with the store. */
  onStep: () => void = () => {};

  constructor(store: MemoryStore, name: string) {
    this.registry = new MemoryRegistry(store);
    this.registry.gate = () => {
      this.onStep();
      return this.process.gate();
    };
    this.election = new KeyElection({
      space: this.registry.space("ali-vpc/election"),
      key: "writer",
      holder: JSON.stringify({ instance: name }),
      log: SILENT,
    });
  }
}

/** Candidates with wrong clocks, of whom the holder is suspended at its nth step. */
async function runElection(
  { step, seed }: { readonly step: number; readonly seed: number },
  signal: AbortSignal,
): Promise<{ violations: string[]; confirmed: number; terms: number }> {
  const random = seededRandom(seed);
  using time = new VirtualTime({ random });
  const violations: string[] = [];
  const seen: { readonly term: bigint; readonly name: string }[] = [];
  const play = async () => {
    const store = new MemoryStore();
    using end = new Ending(signal);
    const candidates = Array.from({ length: CANDIDATES }, (_, n) => {
      const candidate = new Candidate(store, `i-${n}`);
      candidate.process.skewMs = SKEWS_MS[Math.floor(random() * SKEWS_MS.length)]!;
      return candidate;
    });
    let ticked = 0;
    time.onJump = () => {
      store.advance((time.elapsedMs - ticked) / 1_000);
      ticked = time.elapsedMs;
      const holders = candidates.filter(({ process, election }) =>
        !process.isSuspended && time.as(process, () => election.term) !== undefined
      );
      if (holders.length > 1) {
        violations.push(`${clock(time.elapsedMs)}: ${holders.length} hold the office at once`);
      }
    };
    const running = candidates.flatMap((candidate, n) =>
      time.as(candidate.process, () => [
        candidate.election.run(end),
        write(candidate, end.signal, (term) => {
          const last = seen.at(-1);
          if (last !== undefined && term < last.term) {
            violations.push(
              `${clock(time.elapsedMs)}: i-${n} confirms term ${term} after ${last.term} of ` +
                last.name,
            );
          }
          seen.push({ term, name: `i-${n}` });
        }),
      ])
    );
    // Again and again the present holder stops at its nth step from now, for long or not so long.
    while (time.elapsedMs < ELECTION_MS) {
      await delay(random() * 20_000, { signal });
      const holder = candidates.find(({ process, election }) =>
        !process.isSuspended && time.as(process, () => election.term) !== undefined
      );
      const one = holder ?? candidates[Math.floor(random() * CANDIDATES)]!;
      const jump = SKEWS_MS[Math.floor(random() * SKEWS_MS.length)]!;
      if (random() < 0.3) {
        one.process.skewMs = jump;
        one.jumpedAtMs = time.elapsedMs;
      } else await suspendAt(one, { step, random, signal, time });
    }
    end.now();
    for (const { process } of candidates) process.resume();
    await Promise.allSettled(running);
  };
  await time.run(play());
  return {
    violations,
    confirmed: seen.length,
    terms: new Set(seen.map(({ term }) => term)).size,
  };
}

/** Does again and again what only the holder may do, and tells `onWrite` the term. */
async function write(
  { election, process }: Candidate,
  signal: AbortSignal,
  onWrite: (term: bigint) => void,
): Promise<void> {
  for (;;) {
    await delay(700, { signal });
    await process.gate();
    const { term } = election;
    if (term === undefined) continue;
    try {
      await term.confirm({ signal });
      onWrite(BigInt(term.id));
    } catch {
      signal.throwIfAborted();
    }
  }
}

/** Suspends the process, or its machine, at its nth step from now. */
async function suspendAt(
  candidate: Candidate,
  { step, random, signal, time }: {
    readonly step: number;
    readonly random: () => number;
    readonly signal: AbortSignal;
    readonly time: VirtualTime;
  },
): Promise<void> {
  const { process } = candidate;
  let left = step % 12;
  candidate.onStep = () => {
    if (left-- === 0) process.suspend();
  };
  for (let waited = 0; !process.isSuspended && waited < 20_000; waited += 100) {
    await delay(100, { signal });
  }
  candidate.onStep = () => {};
  const ms = [3_000, 12_000, 16_000, 40_000][Math.floor(random() * 4)]!;
  const isMachine = random() < 0.5 && time.elapsedMs - candidate.jumpedAtMs > APART_MS;
  await delay(ms, { signal });
  if (isMachine) process.missedMs += ms;
  process.resume();
}

/** Ends what was started with its signal. */
class Ending implements Disposable {
  readonly #end = new AbortController();
  readonly signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.signal = AbortSignal.any([signal, this.#end.signal]);
  }

  now(): void {
    this.#end.abort(new DOMException("The story is over", "AbortError"));
  }

  [Symbol.dispose](): void {
    this.now();
  }
}

/** A cluster whose hosts' clocks are wrong and jump, and whose writers are suspended. */
async function runStory(
  { seed, hours }: { readonly seed: number; readonly hours: number },
  signal: AbortSignal,
): Promise<Judged & { readonly events: number }> {
  const clusters = [{
    name: "a",
    network: "10.24.0.0/19",
    instances: 20,
    vSwitches: [0, 1] as const,
    graceSeconds: GRACE_SECONDS,
  }];
  return await tellInWorld({ clusters, seed, signal }, async (world, random) => ({
    events: await story(world, { hours, random }),
  }));
}

async function story(
  world: World,
  { hours, random }: { readonly hours: number; readonly random: () => number },
): Promise<number> {
  const [cluster] = world.clusters as [Cluster];
  // All near enough at first, and as far from each other as that allows.
  for (const [n, host] of cluster.hosts.slice(0, 6).entries()) {
    host.process.skewMs = [NEAR_MS, -NEAR_MS, 0][n % 3]!;
    host.start();
  }
  await mustBeReady(cluster, "at first");
  let events = 0;
  while (world.time.elapsedMs < hours * 3_600_000) {
    // An instance leaves for good: a later writer must not think that this was long ago.
    const [gone] = shuffled(cluster.running.filter((host) => host !== cluster.writer), random);
    await gone!.release();
    gone!.dropLease();
    cluster.fresh[0]?.start();
    for (let n = 0; n < 3; n++) {
      await world.sleep(random() * 240);
      events++;
      const one = n === 0 || random() < 0.6 ? cluster.writer : shuffled(cluster.running, random)[0];
      if (one === undefined) continue;
      if (n === 0) {
        // Within the grace the office goes to a host whose clock shows another time.
        await one.suspend(30, random() < 0.5 ? "process" : "machine");
      } else if (random() < 0.4) {
        one.process.skewMs = SKEWS_MS[Math.floor(random() * SKEWS_MS.length)]!;
      } else {
        const seconds = [5, 20, 90, 900][Math.floor(random() * 4)]!;
        await one.suspend(seconds, random() < 0.5 ? "process" : "machine");
      }
    }
    await world.sleep(random() * 900);
  }
  for (const { process } of cluster.hosts) {
    process.skewMs = Math.max(-NEAR_MS, Math.min(NEAR_MS, process.skewMs));
  }
  await mustBeReady(cluster, "in the end");
  return events;
}

async function mustBeReady(cluster: Cluster, when: string): Promise<void> {
  if (await cluster.ready(1_200)) return;
  for (const host of cluster.running.filter(({ isReady }) => !isReady)) {
    cluster.world.oracle.violations.push(
      `${when}: ${host.instanceId} is not ready: ${host.reasons.join("; ")}`,
    );
  }
}
