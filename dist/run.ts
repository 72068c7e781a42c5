// deno-lint-ignore-file no-console -- what it prints is for the operator
/** Runs what compilation and packaging need, and says in one line why it failed. @module */
import { basename, join } from "node:path";
import { describeError, OperatorError } from "../src/errors.ts";
import { describeDownloadFailure } from "./download_failure.ts";

/** The checkout. */
export const ROOT = join(import.meta.dirname!, "..");

/** Where what is downloaded or generated on the way lies. */
export const CACHE = join(ROOT, "dist", "cache");

/**
 * Does a tool's work, and says in one line why it could not.
 */
export async function runTool(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    console.error(describeError(error));
    if (!(error instanceof OperatorError) && error instanceof Error) console.error(error.stack);
    Deno.exit(1);
  }
}

/** Runs this Deno; returns what it wrote. @throws {OperatorError} If it fails. */
export function deno(args: readonly string[]): Promise<string> {
  return run(Deno.execPath(), args);
}

/** Runs a program; returns its text. @throws {OperatorError} If it fails. */
export async function run(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  return new TextDecoder().decode(await runForBytes(program, args, env));
}

/** As {@linkcode run}, for output that is no text. */
export async function runForBytes(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const command = `${basename(program)} ${args.find((word) => !word.startsWith("-")) ?? ""}`.trim();
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(program, {
      args: [...args],
      cwd: ROOT,
      stdin: "null",
      env: { DENO_NO_UPDATE_CHECK: "1", RUST_BACKTRACE: "0", ...env },
    }).output();
  } catch (cause) {
    throw new OperatorError(`Cannot run "${command}": is ${program} installed?`, { cause });
  }
  if (output.success) return output.stdout;
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) =>
    new TextDecoder().decode(bytes)
  ) as [string, string];
  throw new OperatorError(
    describeDownloadFailure(stderr) ?? `Cannot run "${command}": ${(stderr || stdout).trim()}`,
  );
}
