/**
 * What a daemon in the foreground waits for, and how long already: one line at the foot of a
 * terminal, which log lines push down.
 *
 * @module
 */
import { redact } from "../secret.ts";
import type { Notifier } from "../service_manager/notify.ts";

/** How often the seconds are brought up to date. */
const TICK_MS = 1_000;
const UP = "\u001b[1A";
/** Up one line, and everything away from there. */
const ERASE = `${UP}\u001b[J`;

/** The terminal's width, if stderr is one that can move its cursor. */
export function terminalColumns(
  { TERM = "dumb" }: Readonly<Record<string, string | undefined>>,
): number | undefined {
  if (TERM === "dumb" || !Deno.stderr.isTerminal()) return undefined;
  try {
    // A pseudo-terminal that nobody gave a size has none.
    return Deno.consoleSize().columns || 80;
  } catch {
    return undefined;
  }
}

/** The line, and the log above it. Without a terminal there is the log alone. */
export class Progress {
  readonly #write: (line: string) => void;
  readonly #columns: number | undefined;
  readonly #clock: () => number;
  /** What is waited for, and since when; `undefined` once the daemon is ready or stops. */
  #waiting: { readonly text: string; readonly since: number } | undefined;
  #isOver = false;
  #isShown = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  /** @param write Takes a line without its line feed. */
  constructor(
    write: (line: string) => void,
    { columns, clock = () => performance.now() }: {
      /** The terminal's width; `undefined` where there is none. */
      readonly columns: number | undefined;
      readonly clock?: () => number;
    },
  ) {
    this.#write = write;
    this.#columns = columns;
    this.#clock = clock;
  }

  /** Writes a line of the log. */
  log(line: string): void {
    this.#put(line);
    this.#isShown = false;
    this.#draw();
  }

  /** `notifier`, whose status is shown until it says that the daemon is ready, or stops. */
  following(notifier: Notifier): Notifier {
    if (this.#columns === undefined) return notifier;
    const ending = <T>(then: () => T) => () => {
      this.end();
      return then();
    };
    return {
      problem: notifier.problem,
      ready: ending(() => notifier.ready()),
      stopping: ending(() => notifier.stopping()),
      alive: () => notifier.alive(),
      status: (text) => {
        if (!this.#isOver) this.#show(text);
        return notifier.status(text);
      },
      [Symbol.dispose]: ending(() => notifier[Symbol.dispose]()),
    };
  }

  #show(text: string): void {
    this.#waiting = { text, since: this.#clock() };
    this.#timer ??= setInterval(() => this.#draw(), TICK_MS);
    this.#draw();
  }

  /** Takes the line away for good. */
  end(): void {
    if (this.#isShown) this.#put(UP); // the line feed that follows leads back
    this.#isOver = true;
    this.#isShown = false;
    this.#waiting = undefined;
    clearInterval(this.#timer);
  }

  #draw(): void {
    if (!this.#waiting) return;
    const { text, since } = this.#waiting;
    const seconds = `  ${Math.floor((this.#clock() - since) / 1_000)} s`;
    // deno-lint-ignore no-control-regex -- what others wrote must not steer the terminal
    const line = redact(text).replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, " ");
    this.#put(line.slice(0, Math.max(0, this.#columns! - seconds.length - 1)) + seconds);
    this.#isShown = true;
  }

  /** Writes `line` over the one that is shown. */
  #put(line: string): void {
    this.#write(this.#isShown ? `${ERASE}${line}` : line);
  }
}
