/**
 * What the runner of the tests adds up and says at the end.
 *
 * @module
 */
import { addCounts, type Counts } from "./test_report.ts";

/** How the tests of some files went. */
export interface GroupResult {
  readonly counts: Counts;
  /** Of the skipped tests. */
  readonly reasons: readonly string[];
  /** The file, if it is of one that may be run again. */
  readonly file?: string;
  readonly seconds?: number;
}

/** What did not come to its end. */
export const FAILED: GroupResult = { counts: { passed: 0, failed: 1, skipped: 0 }, reasons: [] };

/** All results, the last one of each file. */
export class Results {
  readonly #files = new Map<string, GroupResult>();
  #rest: GroupResult = { counts: { passed: 0, failed: 0, skipped: 0 }, reasons: [] };
  readonly #unsteady: string[] = [];

  add(result: GroupResult): void {
    const { file } = result;
    if (file === undefined) {
      this.#rest = {
        counts: addCounts(this.#rest.counts, result.counts),
        reasons: [...this.#rest.reasons, ...result.reasons],
      };
      return;
    }
    const former = this.#files.get(file);
    if (former && former.counts.failed > 0 && result.counts.failed === 0) this.#unsteady.push(file);
    this.#files.set(file, result);
  }

  /** Files in which a test failed, or that could not be loaded. */
  get failedFiles(): string[] {
    return [...this.#files].filter(([, { counts }]) => counts.failed > 0).map(([file]) => file);
  }

  get counts(): Counts {
    return [...this.#files.values()].map(({ counts }) => counts)
      .reduce(addCounts, this.#rest.counts);
  }

  get reasons(): string[] {
    return [...[...this.#files.values()].flatMap(({ reasons }) => reasons), ...this.#rest.reasons];
  }

  /** Names the files that took longest. */
  slowest(): string {
    const texts = [...this.#files].map(([file, { seconds = 0 }]) => ({ file, seconds }))
      .toSorted((a, b) => b.seconds - a.seconds).slice(0, 12)
      .map(({ file, seconds }) => `${file} ${seconds} s`);
    return `slowest: ${texts.join(", ")}`;
  }

  /** Says how many files passed only when they were run again. */
  steadiness(): string {
    const count = this.#unsteady.length;
    const names = count === 0 ? "" : `: ${this.#unsteady.toSorted().join(", ")}`;
    return `unsteady: ${count} ${count === 1 ? "file" : "files"} needed a second run${names}`;
  }
}
