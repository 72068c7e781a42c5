/**
 * Reads what `deno test` reports.
 *
 * @module
 */

/** How many tests ended how; steps of a test are not counted. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export function addCounts(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

/**
 * The counts in the last line of `deno test`, such as
 * `FAILED | 2 passed (1 step) | 2 failed (1 step) | 1 ignored (1 step) | 3 filtered out (8ms)`.
 * A file that does not load is counted there as one failure. `undefined` if there is no such line,
 * as when types do not fit and nothing is run.
 */
export function parseSummary(output: string): Counts | undefined {
  const line = withoutColours(output).split("\n")
    .findLast((each) => /^(?:ok|FAILED) \| \d+ passed/.test(each));
  if (line === undefined) return undefined;
  const count = (word: string) => Number(new RegExp(`(\\d+) ${word}\\b`).exec(line)?.[1] ?? 0);
  return { passed: count("passed"), failed: count("failed"), skipped: count("ignored") };
}

/** What stands in place of the reason where a skipped test gives none. */
export const NO_REASON = "[skipped: no reason given]";

/**
 * The skipped tests in a JUnit report of `deno test`, each with its reason, which by this project's
 * convention ends its name: `name [skipped: reason]`.
 */
export function parseSkipped(xml: string): string[] {
  const lines: string[] = [];
  for (const [, name] of xml.matchAll(/<testcase name="([^"]*)"[^>]*>\s*<skipped/g)) {
    const title = unescape(name!);
    lines.push(/\[skipped: .*\]$/.test(title) ? title : `${title} ${NO_REASON}`);
  }
  return lines;
}

function withoutColours(output: string): string {
  // deno-lint-ignore no-control-regex
  return output.replaceAll(/\x1b\[[0-9;]*m/g, "");
}

const ENTITIES: Readonly<Record<string, string>> = {
  lt: "<",
  gt: ">",
  amp: "&",
  quot: '"',
  apos: "'",
};

function unescape(text: string): string {
  return text.replaceAll(/&(\w+);/g, (all, name: string) => ENTITIES[name] ?? all);
}
