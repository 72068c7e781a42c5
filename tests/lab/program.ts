import { PERMISSIONS, V8_FLAGS } from "../../dist/compile.ts";

/** How the daemon under test is run. */
export type DaemonProgram =
  | {
    readonly kind: "source";
    /** Another entry point, which runs with the heap of the binary. */
    readonly main?: string;
  }
  | { readonly kind: "binary"; readonly path: string };

/** Names a compiled daemon that the lab runs instead of the sources. */
const BINARY_VARIABLE = "LAB_BINARY";

/** Root of the repository, with a slash at the end. */
export const REPOSITORY = new URL("../../", import.meta.url).pathname;

/** Where `deno task compile` puts the binary. */
export const DEFAULT_BINARY = `${REPOSITORY}dist/flanneld`;

/** The daemon to test: the binary that `LAB_BINARY` names, else the sources. */
export function daemonProgram(path = Deno.env.get(BINARY_VARIABLE)): DaemonProgram {
  return path ? { kind: "binary", path } : { kind: "source" };
}

/** The command line that runs the daemon with `flags`. */
export function daemonCommand(
  program: DaemonProgram,
  flags: readonly string[],
): { program: string; args: string[] } {
  if (program.kind === "binary") return { program: program.path, args: [...flags] };
  return {
    program: Deno.execPath(),
    args: [
      ...["run", "--cached-only", "--no-prompt", ...PERMISSIONS],
      ...(program.main ? [`--v8-flags=${V8_FLAGS}`, program.main] : [`${REPOSITORY}main.ts`]),
      ...flags,
    ],
  };
}

/** The variables without which Deno finds neither itself nor its cache. */
export function denoEnvironment(): Record<string, string> {
  const names = ["HOME", "PATH", "DENO_DIR", "XDG_CACHE_HOME"];
  const entries = names.map((name) => [name, Deno.env.get(name)] as const);
  return {
    DENO_NO_UPDATE_CHECK: "1",
    NO_COLOR: "1",
    ...Object.fromEntries(entries.filter(([, value]) => value !== undefined)),
  };
}
