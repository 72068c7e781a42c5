/**
 * Writes log lines to stderr, whose reader may be slow or absent, without holding up the daemon.
 *
 * @module
 */
import { abortable } from "./util/abortable.ts";
import { deadline, delay } from "./util/time.ts";

export interface LogWriterOptions {
  /** Writes some of `bytes` and returns how many. @default {to stderr, on another thread} */
  readonly write?: (bytes: Uint8Array) => Promise<number>;
  /** Lines that wait may have so many characters together; one more is lost. @default {2 MiB} */
  readonly maxChars?: number;
  /** How long to wait where stderr takes nothing just now (`EAGAIN`). @default {50} */
  readonly retryMs?: number;
}

/** A line that waits to be written. */
interface Waiting {
  readonly text: string;
  /** How many lines are lost with it. */
  readonly lines: number;
}

const BATCH_CHARS = 16_384;

/**
 * Writes lines in order without waiting for the reader: the system call is made on another thread,
 * one at a time. Lines beyond the limit, or that cannot be written, are lost; their number is logged
 * once lines can be written again.
 *
 * `O_NONBLOCK` would do without the thread, but belongs to stderr's file description, which others
 * share: the shell's terminal, programs started beside us.
 */
export class LogWriter {
  /** Composes the line about `lost` lines; set by the owner of the log's format. */
  onLoss: (lost: number) => void = (lost) => this.write(`(${lost} log lines were lost)`);

  readonly #write: (bytes: Uint8Array) => Promise<number>;
  readonly #maxChars: number;
  readonly #retryMs: number;
  #waiting: Waiting[] = [];
  /** Of lines that wait or are being written. */
  #chars = 0;
  #lost = 0;
  /** How many lines the next one counts for, while `onLoss` runs. */
  #standsFor = 1;
  #midLine = false;
  #writing: Promise<void> | undefined;

  constructor(options: LogWriterOptions = {}) {
    this.#write = options.write ?? ((bytes) => Deno.stderr.write(bytes));
    this.#maxChars = options.maxChars ?? 2 ** 21;
    this.#retryMs = options.retryMs ?? 50;
  }

  /** Takes a line, without its line feed; returns at once, and never throws. */
  readonly write = (line: string): void => {
    const lines = this.#standsFor;
    if (this.#chars + line.length > this.#maxChars) {
      this.#lost += lines;
      return;
    }
    this.#waiting.push({ text: `${line}\n`, lines });
    this.#chars += line.length;
    this.#writing ??= this.#writeWaiting();
  };

  /** Resolves when all is written, but after `timeoutMs` at the latest; never rejects. */
  async flush({ timeoutMs }: { readonly timeoutMs: number }): Promise<void> {
    using limit = deadline(timeoutMs, new AbortController());
    await abortable(this.#writing ?? Promise.resolve(), limit).catch(() => {});
  }

  async #writeWaiting(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#takeBatch();
      let isWritten = true;
      try {
        await this.#writeAll(batch.map(({ text }) => text).join(""));
      } catch {
        isWritten = false;
        this.#lost += batch.reduce((sum, { lines }) => sum + lines, 0);
      }
      this.#chars -= batch.reduce((sum, { text }) => sum + text.length - 1, 0);
      if (isWritten && this.#lost > 0) this.#tellLoss();
    }
    this.#writing = undefined; // in the same turn as the look at what waits
  }

  #takeBatch(): Waiting[] {
    let chars = 0;
    let count = 0;
    while (count < this.#waiting.length && (count === 0 || chars < BATCH_CHARS)) {
      chars += this.#waiting[count]!.text.length;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  async #writeAll(text: string): Promise<void> {
    const bytes = new TextEncoder().encode(this.#midLine ? `\n${text}` : text);
    for (let done = 0; done < bytes.length;) {
      try {
        const count = await this.#write(bytes.subarray(done));
        if (count === 0) throw new Error("Nothing was written");
        done += count;
        this.#midLine = done < bytes.length;
      } catch (error) {
        if (!(error instanceof Deno.errors.WouldBlock)) throw error;
        await delay(this.#retryMs, new AbortController());
      }
    }
  }

  #tellLoss(): void {
    const lost = this.#lost;
    this.#lost = 0;
    this.#standsFor = lost;
    try {
      this.onLoss(lost);
    } finally {
      this.#standsFor = 1;
    }
  }
}
