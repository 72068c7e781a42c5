/**
 * Time that jumps: while installed, this process's timers and clocks go by a time of their own,
 * which stands still while anything happens and then jumps to the next timer. Real connections
 * within the process work as ever, so that a day of many daemons passes in minutes.
 *
 * Parts of the program may be told to be a process of their own, with a wrong clock, or suspended.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import http from "node:http";
import { setImmediate } from "node:timers";

/** Event loop turns without a timer set or met that count as nothing happening. */
const QUIET_TURNS = 6;
/** Requests are waited for so long in real time; one that hangs must not stop the clock for ever. */
const MAX_REQUEST_MS = 100;

/** A process as far as time goes. */
export class TimedProcess {
  /** Its time of day is ahead by this. */
  skewMs = 0;
  /** Its monotonic clock is behind by this: it stood still while a virtual machine was suspended. */
  missedMs = 0;
  #resume: (() => void)[] | undefined;

  /** Timers of a suspended process wait until it is resumed. */
  get isSuspended(): boolean {
    return this.#resume !== undefined;
  }

  suspend(): void {
    this.#resume ??= [];
  }

  resume(): void {
    const held = this.#resume ?? [];
    this.#resume = undefined;
    for (const each of held) each();
  }

  /** Resolves at once, or when the process is resumed. */
  gate = (): Promise<void> => new Promise((resolve) => this.run(resolve));

  /** Runs `task` now, or when the process is resumed. */
  run(task: () => void): void {
    if (this.#resume === undefined) task();
    else this.#resume.push(task);
  }
}

/** What `setTimeout` returns, as far as the SDK makes use of it. */
class Timer {
  readonly #clear: (timer: Timer) => void;

  constructor(clear: (timer: Timer) => void) {
    this.#clear = clear;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  [Symbol.dispose](): void {
    this.#clear(this);
  }
}

/** What is to happen when. */
interface Appointment {
  readonly atMs: number;
  readonly repeatMs: number | undefined;
  readonly fire: () => void;
  readonly process: TimedProcess | undefined;
}

const RealDate = Date;
const realPerformanceNow = performance.now.bind(performance);
const real = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
  request: http.request,
  random: Math.random,
};

/** The time of this process until disposed; there is one at most. */
export class VirtualTime implements Disposable {
  readonly #processes = new AsyncLocalStorage<TimedProcess>();
  /** In the order in which they were set. */
  readonly #timers = new Map<Timer, Appointment>();
  readonly #startMs = RealDate.now();
  readonly #monotonicStartMs = realPerformanceNow();
  #elapsedMs = 0;
  #activity = 0;
  #requests = 0;
  /** Called after each jump. */
  onJump: () => void = () => {};
  /** Jumps so far. */
  jumps = 0;
  /** Timers that are due within this of each other are met together. */
  grainMs = 1;

  /** `random` takes the place of `Math.random`, so that a run can be repeated. */
  constructor({ random = Math.random }: { readonly random?: () => number } = {}) {
    Math.random = random;
    const now = () => this.nowMs + (this.#processes.getStore()?.skewMs ?? 0);
    class VirtualDate extends RealDate {
      constructor(...args: unknown[]) {
        super(...(args.length === 0 ? [now()] : args) as [number]);
      }
      static override now = now;
    }
    const set = (repeats: boolean) => (callback: unknown, ms = 0, ...args: unknown[]): Timer => {
      const waitMs = Math.max(1, Number.isFinite(Number(ms)) ? Number(ms) : 1);
      return this.#add(new Timer((each) => this.#clear(each)), {
        atMs: this.#elapsedMs + waitMs,
        repeatMs: repeats ? waitMs : undefined,
        fire: AsyncLocalStorage.bind(() => (callback as (...args: unknown[]) => void)(...args)),
        process: this.#processes.getStore(),
      });
    };
    const clear = (kind: "clearTimeout" | "clearInterval") => (timer?: Timer | number) => {
      if (timer instanceof Timer) this.#clear(timer);
      else real[kind](timer);
    };
    Object.assign(globalThis, {
      Date: VirtualDate,
      setTimeout: set(false),
      clearTimeout: clear("clearTimeout"),
      setInterval: set(true),
      clearInterval: clear("clearInterval"),
    });
    http.request = ((...args: Parameters<typeof http.request>) => {
      const request = real.request(...args);
      this.#requests++;
      this.#activity++;
      request.once("close", () => {
        this.#requests--;
        this.#activity++;
      });
      return request;
    }) as typeof http.request;
    Object.defineProperty(performance, "now", {
      value: () =>
        this.#monotonicStartMs + this.#elapsedMs - (this.#processes.getStore()?.missedMs ?? 0),
      configurable: true,
      writable: true,
    });
  }

  [Symbol.dispose](): void {
    const { request, random, ...timers } = real;
    Math.random = random;
    Object.assign(globalThis, { Date: RealDate, ...timers });
    http.request = request;
    Reflect.deleteProperty(performance, "now");
  }

  /** Milliseconds since the epoch, by the right clock. */
  get nowMs(): number {
    return this.#startMs + this.#elapsedMs;
  }

  /** Milliseconds since the beginning. */
  get elapsedMs(): number {
    return this.#elapsedMs;
  }

  /** Says that something has happened which no timer shows. */
  touch(): void {
    this.#activity++;
  }

  /** Runs `task` as part of `process`, with all that follows from it. */
  as<Result>(process: TimedProcess, task: () => Result): Result {
    return this.#processes.run(process, task);
  }

  /** Lets time pass until `task` has settled. */
  async run<Result>(task: Promise<Result>): Promise<Result> {
    let isSettled = false;
    task.then(() => isSettled = true, () => isSettled = true);
    for (;;) {
      let seen = this.#activity;
      let seenAtMs = realPerformanceNow();
      for (let quiet = 0; quiet < QUIET_TURNS;) {
        await new Promise<void>((resolve) => setImmediate(() => resolve()));
        if (isSettled) return await task;
        if (this.#activity !== seen) {
          quiet = 0;
          seen = this.#activity;
          seenAtMs = realPerformanceNow();
        } else if (this.#requests === 0) quiet++;
        else if (realPerformanceNow() - seenAtMs > MAX_REQUEST_MS) break;
      }
      await this.#jump();
    }
  }

  async #jump(): Promise<void> {
    let next = Infinity;
    for (const { atMs } of this.#timers.values()) next = Math.min(next, atMs);
    if (next === Infinity) {
      // What is waited for comes from outside, such as a connection's end.
      await new Promise((resolve) => real.setTimeout(resolve, 5));
      return;
    }
    this.jumps++;
    this.#elapsedMs = Math.max(this.#elapsedMs, Math.ceil(next / this.grainMs) * this.grainMs);
    const due = [...this.#timers].filter(([, { atMs }]) => atMs <= this.#elapsedMs)
      .sort(([, a], [, b]) => a.atMs - b.atMs);
    for (const [timer, appointment] of due) {
      if (!this.#timers.delete(timer)) continue; // cleared by one before it
      const { repeatMs, fire, process } = appointment;
      if (repeatMs !== undefined) {
        this.#add(timer, { ...appointment, atMs: this.#elapsedMs + repeatMs });
      }
      if (process === undefined) fire();
      else process.run(fire);
    }
    this.onJump();
  }

  #add(timer: Timer, appointment: Appointment): Timer {
    this.#activity++;
    this.#timers.set(timer, appointment);
    return timer;
  }

  #clear(timer: Timer): void {
    if (this.#timers.delete(timer)) this.#activity++;
  }
}
