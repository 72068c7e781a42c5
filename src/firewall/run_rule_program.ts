/** Runs the programs of iptables and nftables. @module */
import { OperatorError } from "../errors.ts";
import { ProgramNotFoundError, runProgram, type RunResult } from "../util/process.ts";
import { present } from "../util/present.ts";
import { Backoff } from "../util/time.ts";

/** A program of the iptables or nftables family, for messages and repair. */
export interface RuleProgram {
  readonly name: string;
  /** Kernel modules that it needs, for the message when they are missing. */
  readonly modules: string;
}

/** Attempts at a command that meets a lock or a concurrent change. */
const MAX_ATTEMPTS = 6;

/** What the programs and their plug-ins read; see iptables(8). `*` matches any ending. */
const VARIABLES = [
  "PATH",
  "LANG",
  "LC_*",
  "XTABLES_*",
  "IPTABLES_LIB_DIR",
  "IP6TABLES_LIB_DIR",
];

/**
 * The environment of rule programs: only what they need of ours, which may hold AccessKeys and
 * passwords.
 */
export function ruleProgramEnvironment(
  environment: Readonly<Record<string, string>> = Deno.env.toObject(),
): Record<string, string> {
  const isNeeded = (name: string) =>
    VARIABLES.some((each) =>
      each.endsWith("*") ? name.startsWith(each.slice(0, -1)) : name === each
    );
  return Object.fromEntries(Object.entries(environment).filter(([name]) => isNeeded(name)));
}

/**
 * Runs the program, which must succeed. After another program's lock or change (iptables exits with
 * 4 or prints EAGAIN), it is retried a few times with jittered pauses of up to 1 s.
 *
 * @throws {ProgramNotFoundError} If it is not installed.
 * @throws {OperatorError} If it may not change rules, or the kernel lacks what the rules need.
 * @throws {Error} On any other failure.
 */
export async function runRuleProgram(
  program: RuleProgram,
  args: readonly string[],
  options: { readonly signal: AbortSignal; readonly stdin?: string },
): Promise<string> {
  const { signal, stdin } = options;
  const given = present({ signal, stdin, wholeEnv: ruleProgramEnvironment() });
  const retry = new Backoff({ initialMs: 200, maxMs: 1_000 });
  for (let attempt = 1;; attempt++) {
    const result = await runProgram(program.name, args, given);
    if (result.code === 0) return result.stdout;
    if (attempt >= MAX_ATTEMPTS || !isContention(result)) throw failure(program, args, result);
    await retry.wait(options);
  }
}

/** iptables over nf_tables exits with 4 for lasting reasons too; those name an errno. */
function isContention({ code, stderr }: RunResult): boolean {
  if (
    /resource temporarily unavailable|holding the xtables lock|device or resource busy/i.test(
      stderr,
    )
  ) {
    return true;
  }
  return code === 4 &&
    !/invalid argument|no such file|not supported|not permitted|permission denied/i.test(stderr);
}

function failure(program: RuleProgram, args: readonly string[], result: RunResult): Error {
  const said = (result.stderr.trim() || result.stdout.trim()).replaceAll(/\s+/g, " ").slice(0, 500);
  const command = [program.name, ...args].join(" ");
  if (/not permitted|permission denied|must be root/i.test(said)) {
    return new OperatorError(
      `Cannot run "${command}": ${said}; traffic rules need root, or the capability ` +
        `CAP_NET_ADMIN (and CAP_NET_RAW with iptables)`,
    );
  }
  if (/CHAIN_ADD failed|is incompatible|incompatible base-chains/i.test(said)) {
    return new OperatorError(
      `Cannot run "${command}": ${said}; nft has made a chain or table in the place that iptables ` +
        `uses (see "nft list ruleset"): have it moved to a table of its own, or set ` +
        `"EnableNFTables": true in the network config; if there is none, the kernel lacks one of ` +
        `the modules ${program.modules}`,
    );
  }
  if (
    /can't initialize|unable to initialize|need to insmod|missing kernel module|not supported/i
      .test(said)
  ) {
    return new OperatorError(
      `Cannot run "${command}": ${said}; the kernel lacks support: load the modules ` +
        `${program.modules}, or use the other mode (EnableNFTables in the network config)`,
    );
  }
  return new Error(`Cannot run "${command}": exit code ${result.code}: ${said}`);
}

/** What `run` gives; `undefined` where the program that it runs is not installed. */
export async function ifInstalled<Result>(run: Promise<Result>): Promise<Result | undefined> {
  try {
    return await run;
  } catch (error) {
    if (error instanceof ProgramNotFoundError) return undefined;
    throw error;
  }
}

/** What `program` says of its version, such as `[1, 8, 9]`; `undefined` if it is not installed. */
export async function probeVersion(
  program: RuleProgram,
  options: { readonly signal: AbortSignal },
): Promise<{ readonly text: string; readonly version: readonly number[] | undefined } | undefined> {
  const text = (await ifInstalled(runRuleProgram(program, ["--version"], options)))?.trim();
  if (text === undefined) return undefined;
  return { text, version: parseVersion(text) };
}

/** The first version number in `text`. */
export function parseVersion(text: string): readonly number[] | undefined {
  return /v(\d+(?:\.\d+)+)/.exec(text)?.[1]?.split(".").map(Number);
}

/** Whether `version` is `minimum` or later. */
export function isAtLeast(version: readonly number[], minimum: readonly number[]): boolean {
  for (const [i, least] of minimum.entries()) {
    const part = version[i] ?? 0;
    if (part !== least) return part > least;
  }
  return true;
}
