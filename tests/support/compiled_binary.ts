/**
 * The compiled daemon for tests: the one that they are given, or one made of the sources as they are.
 *
 * @module
 */
import { daemonProgram, REPOSITORY } from "../lab/mod.ts";
import { run } from "./run.ts";

const given = daemonProgram();
/** Why there can be no binary here; `undefined` if there can. */
export const binaryObstacle = given.kind === "binary" || hasRuntime()
  ? undefined
  : `needs the runtime for deno compile: set DENORT_BIN, or run "deno task compile" once`;

/** Whether `deno compile` finds its runtime without a download. */
function hasRuntime(): boolean {
  if (Deno.env.get("DENORT_BIN")) return true;
  const home = Deno.env.get("HOME") ?? "";
  const cache = Deno.env.get("DENO_DIR") ??
    `${Deno.env.get("XDG_CACHE_HOME") ?? `${home}/.cache`}/deno`;
  const target = `${Deno.build.arch}-unknown-linux-gnu`;
  try {
    Deno.statSync(`${cache}/dl/release/v${Deno.version.deno}/denort-${target}.zip`);
    return true;
  } catch {
    return false;
  }
}

let compiling: Promise<string> | undefined;

/** The binary's path; a process compiles it once. */
export function compiledBinary(signal: AbortSignal): Promise<string> {
  return compiling ??= given.kind === "binary" ? Promise.resolve(given.path) : compile(signal);
}

async function compile(signal: AbortSignal): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-binary-" });
  globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
  const path = `${directory}/flanneld`;
  const report = await run(Deno.execPath(), [
    ...["run", "-A", "--cached-only", `${REPOSITORY}dist/compile.ts`, `--output=${path}`],
  ], { signal, timeoutMs: 240_000 });
  // deno-lint-ignore no-console -- the figure is for whoever reads the test's output
  console.log(report.trim());
  return path;
}
