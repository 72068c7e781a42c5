/** Runs another CNI plug-in, found through CNI_PATH, as libcni does. @module */
import { isObject } from "../util/json_object.ts";
import { runProgram } from "../util/process.ts";
import { delay } from "../util/time.ts";
import { CniFailure, CODES } from "./failure.ts";

/** A plug-in that is being replaced cannot be started for a moment. */
const BUSY_TRIES = 6;
const BUSY_MS = 1_000;
/** Runtimes give up earlier. */
const LIMIT_MS = 600_000;

/** The variables of this call; the delegate gets them all. */
export type CniEnvironment = Readonly<Record<string, string>>;

/**
 * Runs the plug-in `type` with `config` on standard input; returns its standard output.
 *
 * @throws {CniFailure} What the plug-in printed as its failure.
 */
export async function runDelegate(
  type: string,
  config: string,
  environment: CniEnvironment,
  signal: AbortSignal,
): Promise<string> {
  const verb = environment["CNI_COMMAND"]!.toLowerCase();
  const program = await findPlugin(type, environment["CNI_PATH"] ?? "");
  const { code, stdout, stderr } = await start(program, config, environment, signal);
  if (code === 0) return stdout;
  const { code: own, msg, details } = parseFailure(stdout);
  throw new CniFailure(
    own ?? CODES.internal,
    `failed to delegate ${verb}: ${msg ?? (stderr.trim() || `${type} ended with ${code}`)}`,
    details,
  );
}

/** The first executable file of this name in `path`. */
async function findPlugin(type: string, path: string): Promise<string> {
  if (!type.includes("/") && type !== "") {
    for (const directory of path.split(":")) {
      if (directory === "") continue;
      const found = await Deno.stat(`${directory}/${type}`).catch(() => undefined);
      if (found?.isFile && ((found.mode ?? 0) & 0o111) !== 0) return `${directory}/${type}`;
    }
  }
  throw new CniFailure(
    CODES.internal,
    `failed to find plugin "${type}" in path [${path}]`,
    "install the reference plug-ins of containernetworking there",
  );
}

async function start(
  program: string,
  stdin: string,
  wholeEnv: CniEnvironment,
  signal: AbortSignal,
) {
  for (let left = BUSY_TRIES;; left--) {
    try {
      return await runProgram(program, [], { stdin, wholeEnv, signal, timeoutMs: LIMIT_MS });
    } catch (error) {
      const { cause } = error as Error;
      const isBusy = cause instanceof Error && cause.message.includes("Text file busy");
      if (!isBusy || left <= 1) {
        throw new CniFailure(CODES.internal, `Cannot run ${program}`, String(cause ?? error));
      }
      await delay(BUSY_MS, { signal });
    }
  }
}

function parseFailure(
  text: string,
): { readonly code?: number; readonly msg?: string; readonly details?: string } {
  try {
    const value: unknown = JSON.parse(text);
    if (!isObject(value)) return {};
    const { code, msg, details } = value;
    return {
      ...(typeof code === "number" ? { code } : {}),
      ...(typeof msg === "string" ? { msg } : {}),
      ...(typeof details === "string" ? { details } : {}),
    };
  } catch {
    return {};
  }
}
