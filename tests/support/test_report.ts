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

/**
 * Those of `files` that did not pass by what `deno test` printed, without `--parallel`: a test in
 * it has failed, or it never got to say `running 2 tests from ./a_test.ts`, as when it could not be
 * loaded. (The JUnit report does not tell: it has a test under the file that called `Deno.test()`,
 * which may be a helper of many files.)
 */
export function findFailedFiles(files: readonly string[], output: string): string[] {
  const started = new Set<string>();
  const failed = new Set<string>();
  let current = "";
  let isTestsOwn = false;
  for (const line of withoutColours(output).split("\n")) {
    // What follows are the errors' own texts.
    if (line === " ERRORS ") break;
    const marker = /^-+ (?:post-test )?output( end)? -+$/.exec(line);
    if (marker) isTestsOwn = marker[1] === undefined;
    const header = /^running \d+ tests? from (?:\.\/)?(.+)$/.exec(line)?.[1];
    if (header !== undefined && !isTestsOwn) {
      current = header;
      started.add(current);
    }
    // The outcome of a test that took long has a line of its own.
    const isFailure = /(?:^|\.\.\.) *(?:FAILED|cancelled) \(|^Uncaught error from .* FAILED$/;
    if (isFailure.test(line)) failed.add(current);
  }
  return files.filter((file) => !started.has(file) || failed.has(file));
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
