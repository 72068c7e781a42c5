/**
 * Daemons that are killed at one system call, or get an error from it: while they start, publish,
 * write a batch of routes, and stop. Whatever the call, the same process or the next one brings
 * everything to the state that a daemon reaches undisturbed, and the host keeps its one lease.
 *
 * @module
 */
import { describeError } from "../../src/errors.ts";
import { delay } from "../../src/util/time.ts";
import {
  type Daemon,
  daemonCommand,
  type DaemonProgram,
  daemonProgram,
  parseSubnetEnv,
} from "../lab/mod.ts";
import { openCloudLab } from "../process/cloud_support.ts";
import { listPids, networkNamespaceOf } from "../support/process_table.ts";
import { settleAll } from "../support/settle_all.ts";
import { patient } from "../support/slowness.ts";
import { type Campaign, CampaignFailure, seededRandom } from "./campaign.ts";
import {
  attach,
  type CallKind,
  type CallRange,
  describePoint,
  drawPoint,
  ERROR_WORDS,
  type Point,
  readCalls,
  readHits,
  release,
  traced,
} from "./strace.ts";
import { PEERS, Subject, type SubjectType } from "./syscall_subjects.ts";

const TYPES: readonly SubjectType[] = ["vxlan", "udp", "ali-vpc"];
/** The long form goes on for so long; the short one has so many points of each subject. */
const LONG_MS = 8 * 60_000;
const SHORT_POINTS = 3;
/** How long a daemon may take to be ready, and then until all is as it should be. */
const READY_MS = 30_000;
const SETTLED_MS = 30_000;
const LEFT_MS = 5_000;
/** How long a run goes on that was not hit by then. */
const LOOK_MS = 1_500;

export const campaign: Campaign = {
  summary: "SIGKILL, ENOSPC, EMFILE, ENOMEM, EIO at any system call of start, publish and stop",
  async run({ long, seed, signal, say }) {
    await using lab = await openCloudLab({ signal, hosts: TYPES.length });
    const until = performance.now() + LONG_MS;
    const trials = await settleAll(TYPES.map(async (type, index) => {
      const subject = await Subject.open(lab, lab.hosts[index]!, type, { signal });
      const trial = new Trial(subject, lab.directory, {
        random: seededRandom(seed + index),
        signal,
        say,
      });
      await trial.survey();
      for (let n = 0; long ? performance.now() < until : n < SHORT_POINTS; n++) await trial.next(n);
      return trial;
    }));
    const violations = trials.flatMap((trial) => trial.violations);
    if (violations.length > 0) throw new CampaignFailure("syscall-kill", violations);
    const figures: Record<string, number> = {};
    for (const { counts, subject } of trials) {
      for (const [name, count] of Object.entries(counts)) {
        figures[`${subject.type}: ${name}`] = count;
      }
    }
    return figures;
  },
};

/** How a daemon went on. */
type Outcome = "ended" | "running" | "hangs";

/** One subject's points, one after the other. */
class Trial {
  readonly subject: Subject;
  readonly violations: string[] = [];
  readonly counts = {
    "points": 0,
    "daemon killed": 0,
    "child killed": 0,
    "errors met and overcome": 0,
    "ended by an error": 0,
    "ended by the runtime": 0,
    "not reached": 0,
    "calls known": 0,
    "kinds of calls known": 0,
    "kinds of calls hit": 0,
  };
  readonly #kindsTried = new Set<string>();
  readonly #kindsHit = new Set<string>();
  readonly #directory: string;
  readonly #random: () => number;
  readonly #signal: AbortSignal;
  readonly #say: (line: string) => void;
  /** What an undisturbed daemon reaches. */
  #expected: readonly string[] = [];
  #calls: Record<"start" | "running", readonly CallRange[]> = { start: [], running: [] };

  constructor(
    subject: Subject,
    directory: string,
    { random, signal, say }: {
      readonly random: () => number;
      readonly signal: AbortSignal;
      readonly say: (line: string) => void;
    },
  ) {
    this.subject = subject;
    this.#directory = `${directory}/${subject.host.label}-strace`;
    this.#random = random;
    this.#signal = signal;
    this.#say = say;
  }

  /** Learns what a daemon reaches undisturbed, and which calls it makes. */
  async survey(): Promise<void> {
    const { subject } = this;
    await Deno.mkdir(this.#directory);
    const isOfInterest = (path: string) =>
      path.startsWith(`${subject.host.directory}/`) ||
      /^\/proc\/sys\/net\/|^\/dev\/net\//.test(path);
    const [starting, running] = [`${this.#directory}/starting`, `${this.#directory}/running`];
    await subject.addPeers();
    const daemon = await this.#start(traced(starting));
    await daemon.ready({ signal: this.#signal, timeoutMs: READY_MS });
    this.#expected = await this.#steadyState();
    await daemon.stop();
    await subject.removePeers();

    const second = await this.#start();
    await second.ready({ signal: this.#signal, timeoutMs: READY_MS });
    await using tracer = await attach(second.process.pid, running, { signal: this.#signal });
    await subject.disturb();
    const { difference } = await this.#settle(second);
    if (difference.length > 0) {
      throw new Error(
        `${subject.type} undisturbed: ${difference.join("\n")}\n${second.process.tail(30)}`,
      );
    }
    await second.stop();
    await tracer.status;
    this.#calls = {
      start: readCalls(await Deno.readTextFile(starting), {
        begin: "INFO  Starting",
        isOfInterest,
      }),
      running: readCalls(await Deno.readTextFile(running), { isOfInterest }),
    };
    const total = (ranges: readonly CallRange[]) =>
      ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
    this.counts["kinds of calls known"] = this.#calls.start.length + this.#calls.running.length;
    this.counts["calls known"] = total(this.#calls.start) + total(this.#calls.running);
  }

  /** One point: a run that meets it, and if that ended the daemon, one that does not. */
  async next(n: number): Promise<void> {
    const { subject, counts } = this;
    const random = this.#random;
    const phase = random() < 0.5 ? "start" : "running";
    const calls = this.#calls[phase];
    const untried = calls.filter((kind) => !this.#kindsTried.has(keyOf(phase, kind)));
    const point = drawPoint(untried.length > 0 && random() < 0.5 ? untried : calls, random);
    this.#kindsTried.add(keyOf(phase, point));
    // Where all is in place, nothing is written.
    const isFresh = random() < 0.5 || /\.flanneld$/.test(point.path ?? "");
    if (isFresh) await subject.reset();
    if (phase === "start") await subject.addPeers();
    else await subject.removePeers();
    const title = `${subject.type} ${phase}${isFresh ? ", fresh" : ""}: ${describePoint(point)}`;
    const former = await subject.subnetEnv();
    const output = `${this.#directory}/${n}`;
    const fault = (text: string) => {
      const log = subject.host.daemon.process.tail(12);
      this.violations.push(`${title}: ${text}\n${log}`);
      this.#say(`${title}: ${text}`);
    };
    try {
      counts.points++;
      const outcome = await this.#meet(point, phase, output, fault);
      const daemon = subject.host.daemon;
      const hits = readHits(await Deno.readTextFile(output).catch(() => ""));
      if (hits.length > 0) this.#kindsHit.add(keyOf(phase, point));
      counts["kinds of calls hit"] = this.#kindsHit.size;
      const { ended } = daemon.process;
      if (hits.length === 0) counts["not reached"]++;
      else if (ended?.signal === "SIGKILL") counts["daemon killed"]++;
      else if (outcome !== "running" && ended?.code !== 1) counts["ended by the runtime"]++;
      else if (outcome === "ended") counts["ended by an error"]++;
      else if (point.effect === "kill") counts["child killed"]++;
      else counts["errors met and overcome"]++;
      if (outcome === "ended") this.#judgeEnd(point, hits, daemon, fault);
      if (outcome === "running") await this.#judgeRecord(daemon, fault);
      this.#say(`${title}: ${outcome} ${hits[0]?.slice(0, 140) ?? "(not reached)"}`);
      await daemon.kill();

      const text = await this.#judgeLeft(former, fault);
      const kept = await subject.leaseKeys();
      if (kept.length > 1) fault(`it has ${kept.length} leases: ${kept.join(", ")}`);
      if (outcome !== "running") {
        await this.#recover(kept[0], fault);
        const now = await subject.subnetEnv();
        if (text !== undefined && now !== text) fault(`subnet.env was ${text}, and is ${now}`);
      }
    } catch (error) {
      this.#signal.throwIfAborted();
      fault(describeError(error));
    } finally {
      await subject.host.killDaemon();
    }
  }

  /** Runs a daemon that meets `point`, to its end or until all is well in spite of it. */
  async #meet(
    point: Point,
    phase: "start" | "running",
    output: string,
    fault: (text: string) => void,
  ): Promise<Outcome> {
    const daemon = await this.#start(phase === "start" ? traced(output, point) : []);
    await using stack = new AsyncDisposableStack();
    stack.use(this.#releaseOnceHit(daemon, output));
    if (await this.#readyOrEnded(daemon) === "hangs") {
      fault("it neither gets ready nor ends");
      return "hangs";
    }
    if (daemon.process.ended === undefined && phase === "running") {
      const { pid } = daemon.process;
      stack.use(await attach(pid, output, { signal: this.#signal, point }));
      await this.subject.disturb();
    }
    const { difference } = await this.#settle(daemon);
    if (difference.length > 0) {
      fault(`all is not as it should be: ${difference.join("; ")}`);
      return "hangs";
    }
    if (daemon.process.ended === undefined) {
      // What is looked at from time to time comes a little later.
      if (!await wasHit(output)) await delay(LOOK_MS, { signal: this.#signal });
      await daemon.stop();
      if (daemon.process.ended!.code === 0) return "running";
    }
    return "ended";
  }

  /** A hit is one event of a machine, not something that befalls every child from then on. */
  #releaseOnceHit({ process }: Daemon, output: string): Disposable {
    let seen = 0;
    const timer = setInterval(async () => {
      if (await wasHit(output) && ++seen > 1) release(process.pid);
    }, 100);
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /** Starts a daemon as if the host had been set up anew or gone on, which has to come up. */
  async #recover(kept: string | undefined, fault: (text: string) => void): Promise<void> {
    const { subject } = this;
    await subject.addPeers();
    const daemon = await this.#start();
    if (await this.#readyOrEnded(daemon) !== "ready") {
      return fault("the next start does not get ready");
    }
    const { difference } = await this.#settle(daemon);
    if (difference.length > 0) fault(`after the next start: ${difference.join("; ")}`);
    const now = await subject.leaseKeys();
    if (kept !== undefined && now.join() !== kept) fault(`its lease was ${kept}, and is ${now}`);
    const { code } = await daemon.stop();
    if (code !== 0) fault(`the next run exited with ${code}`);
  }

  #start(words: readonly string[] = []): Promise<Daemon> {
    const { host, flags, temporary } = this.subject;
    return this.#program(words).then((program) =>
      host.startDaemon({ program, flags, env: { TMPDIR: temporary } })
    );
  }

  /** The daemon under test, behind `words`. */
  async #program(words: readonly string[]): Promise<DaemonProgram> {
    if (words.length === 0) return daemonProgram();
    const { program, args } = daemonCommand(daemonProgram(), []);
    const quoted = [...words, program, ...args].map((word) => `'${word}'`).join(" ");
    const path = `${this.#directory}/flanneld`;
    await Deno.writeTextFile(path, `#!/bin/sh\nexec ${quoted} "$@"\n`, { mode: 0o700 });
    return { kind: "binary", path };
  }

  async #readyOrEnded(daemon: Daemon): Promise<"ready" | "ended" | "hangs"> {
    const until = performance.now() + patient(READY_MS);
    while (performance.now() < until) {
      if (daemon.process.ended !== undefined) return "ended";
      if (daemon.isReady()) return "ready";
      await delay(20, { signal: this.#signal });
    }
    return "hangs";
  }

  /** Waits until all is as it should be, or the daemon has ended; what differs at last. */
  async #settle(daemon: Daemon): Promise<{ readonly difference: readonly string[] }> {
    const until = performance.now() + patient(SETTLED_MS);
    for (;;) {
      if (daemon.process.ended !== undefined) return { difference: [] };
      const difference = differenceOf(await this.subject.state(), this.#expected);
      if (difference.length === 0 || performance.now() > until) return { difference };
      await delay(100, { signal: this.#signal });
    }
  }

  /** The state once it has stayed the same for a moment. */
  async #steadyState(): Promise<readonly string[]> {
    for (let former = "";;) {
      await delay(700, { signal: this.#signal });
      const state = await this.subject.state();
      if (state.join("\n") === former && this.subject.isComplete(state)) return state;
      former = state.join("\n");
    }
  }

  /** The daemon may end where it is killed, or for an error that it names; or by its runtime. */
  #judgeEnd(
    { effect }: Point,
    hits: readonly string[],
    { process }: Daemon,
    fault: (text: string) => void,
  ): void {
    const { code, signal } = process.ended!;
    const how = `it ended with ${signal ?? code}`;
    if (hits.length === 0) return fault(`${how} without a reason`);
    if (effect === "kill") return signal === "SIGKILL" ? undefined : fault(how);
    if (signal === "SIGKILL") return fault("it does not end on SIGTERM");
    if (code === 1 && !process.lines.some((line) => ERROR_WORDS[effect.error]!.test(line))) {
      fault(`${how} and does not say ${effect.error}`);
    }
  }

  /** A packet path that has been stopped leaves a record of its last state, or says why not. */
  async #judgeRecord({ process }: Daemon, fault: (text: string) => void): Promise<void> {
    const { type } = this.subject;
    const peers = await this.subject.recordedPeers();
    if (peers === (type === "udp" ? PEERS : undefined)) return;
    if (process.lines.some((line) => /Cannot write .*\.udp/.test(line))) return;
    fault(`its record has ${peers} of ${PEERS} peers`);
  }

  /**
   * What an ended daemon leaves: whole files, nothing temporary, no process. Returns the text of
   * subnet.env, which no later run has a reason to change.
   */
  async #judgeLeft(
    former: string | undefined,
    fault: (text: string) => void,
  ): Promise<string | undefined> {
    const { subject } = this;
    const text = await subject.subnetEnv();
    if (former !== undefined && text !== former) fault(`subnet.env was ${former}, and is ${text}`);
    if (text !== undefined) parseSubnetEnv(text);
    await subject.recordedPeers();
    const temporary = [...Deno.readDirSync(subject.temporary)].map(({ name }) => name);
    if (temporary.length > 0) fault(`it leaves ${temporary.join(", ")}`);
    const inode = Deno.statSync(`/run/netns/${subject.host.namespace.name}`).ino;
    const left = () => listPids().filter((pid) => networkNamespaceOf(pid) === inode);
    const until = performance.now() + patient(LEFT_MS);
    while (left().length > 0 && performance.now() < until) {
      await delay(20, { signal: this.#signal });
    }
    if (left().length > 0) fault(`it leaves ${left().length} processes`);
    return text;
  }
}

async function wasHit(output: string): Promise<boolean> {
  return readHits(await Deno.readTextFile(output).catch(() => "")).length > 0;
}

function keyOf(phase: string, { syscall, path }: CallKind): string {
  return `${phase} ${syscall} ${path}`;
}

/** What one has and the other has not. */
function differenceOf(actual: readonly string[], expected: readonly string[]): string[] {
  return [
    ...actual.filter((line) => !expected.includes(line)).map((line) => `+ ${line}`),
    ...expected.filter((line) => !actual.includes(line)).map((line) => `- ${line}`),
    ...(new Set(actual).size === new Set(expected).size && actual.length !== expected.length
      ? [`${actual.length} lines instead of ${expected.length}`]
      : []),
  ];
}
