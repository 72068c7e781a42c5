import { runProgram, type RunResult } from "../../src/util/process.ts";
import { patient } from "./slowness.ts";

/** Options of {@linkcode run}. */
export interface RunCheckedOptions {
  readonly signal: AbortSignal;
  readonly stdin?: string;
  /** The program is killed after this, on a machine of usual speed. @default {30_000} */
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Runs a program that has to succeed and returns what it wrote to standard output.
 *
 * @throws {Error} If it exits with another code than 0; the message carries its standard error.
 */
export async function run(
  program: string,
  args: readonly string[],
  options: RunCheckedOptions,
): Promise<string> {
  const timeoutMs = patient(options.timeoutMs ?? 30_000);
  const result = await runProgram(program, args, { ...options, timeoutMs });
  if (result.code !== 0) throw new Error(failureText(program, args, result));
  return result.stdout;
}

/** One line that says which command failed, how, and the last it said about it. */
export function failureText(program: string, args: readonly string[], result: RunResult): string {
  const said = (result.stderr.trim() || result.stdout.trim()).split("\n").slice(-5).join(" | ");
  return `Cannot run "${program} ${args.join(" ")}": exit code ${result.code}: ${said}`;
}
