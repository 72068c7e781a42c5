// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task compile [--output=FILE] [--target=aarch64]`: type-checks the sources and compiles them
 * with libnl inside to one executable, `dist/flanneld`, has it try every part that it loads late, and
 * reports its size and start-up time. A build that has lost a part fails and leaves no executable.
 *
 * `deno compile` downloads the runtime `denort` of its own version. Where that cannot be, the
 * variable DENORT_BIN names one; as compiler and runtime must be of one version, the Deno of that
 * version then does the compiling. For another machine than this one, the executable is made but not
 * tried.
 *
 * @module
 */
import fs from "node:fs";
import { basename, join, relative } from "node:path";
import { Buffer } from "node:buffer";
import { parseArgs } from "node:util";
import { LIBNL_SONAMES } from "../src/host/carried_libraries.ts";
import { describeError, OperatorError } from "../src/errors.ts";
import { ensurePrerequisites, LIBNL_NEEDS } from "../tests/prerequisites.ts";
import {
  fetchPackages,
  findFile,
  PackageUnavailableError,
  pinnedPackages,
} from "./debian/packages.ts";
import { elfMachine, oldestGlibc } from "./elf.ts";
import { CACHE, deno, ROOT, run, runTool } from "./run.ts";
import { parseTarget, type Target, TARGETS } from "./target.ts";

/** The least that works: the daemon's own needs, nothing for npm packages beyond them. */
export const PERMISSIONS = [
  "--allow-net", // the store, the cloud's APIs, health; TLS tunnel sockets
  "--allow-ffi", // netlink
  "--allow-read", // subnet.env, certificates, token files; kernel files go through libc
  "--allow-write", // --subnet-file may name any place
  "--allow-env", // pop-core's `debug` enumerates the environment
  "--allow-sys=hostname,osRelease,uid,networkInterfaces",
  // iptables and nft, wherever they are: names in a list are looked up before the program starts,
  // which it then does not without PATH; and to --allow-ffi a list would be no bound.
  "--allow-run",
];

/**
 * Small heap: an idle daemon makes little garbage, and 1,000 nodes run it. The young generation is
 * of 1 MB, and the old one is collected when it has grown by a fifth, not when it has doubled.
 */
export const V8_FLAGS = [
  "--max-semi-space-size=1",
  "--heap-growing-percent=20",
  // For once, after the start.
  "--expose-gc",
  // Freed memory goes back after 2 s of quiet instead of 8.
  "--memory-reducer-delay-ms=2000",
  // Ten times the default: to optimize what runs once per change costs more than it saves, for as
  // long as a few hundred changes. The packet path is past that within a second.
  "--invocation-count-for-maglev=4000",
  "--invocation-count-for-turbofan=30000",
].join(",");

/**
 * Entry points and where each is bundled to. One file in place of a hundred spares about 8 MB and
 * a quarter of the start-up time.
 */
const BUNDLES = [
  ["main.ts", "main.js"],
  // Under the name by which the other one looks for it beside itself.
  ["src/dataplane/worker.ts", "worker.ts"],
] as const;

/**
 * Packages that are carried as they are: loaded late or never, and not sound in a bundle (calls of
 * pop-core's get no answer there).
 */
const CARRIED_PACKAGES = ["@alicloud/pop-core"];

/**
 * What goes into the executable: bundles, and beside them what they look for at `./lib/`. Each
 * compilation has its own, as others may be under way.
 */
const cache = join(CACHE, `compile-${Deno.pid}`);

/** What stands before the time of a file in the table of those inside. */
const TIME_MARK = '"t":';

if (import.meta.main) await runTool(main);

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      output: { type: "string", default: join(ROOT, "dist", "flanneld") },
      target: { type: "string", default: Deno.build.arch },
    },
  });
  await compile(values.output, parseTarget(values.target));
  if (values.target === Deno.build.arch) await report(values.output);
}

/**
 * Writes the executable for `target` to `output`.
 *
 * @throws {OperatorError} If it cannot be made, or lacks a part.
 */
export async function compile(output: string, target: Target): Promise<void> {
  // Under its name only when it was found to be whole.
  const unproven = `${output}.unproven`;
  try {
    await carryLibraries(target);
    const compiler = await findCompiler(target);
    await deno(["check", "--quiet", join(ROOT, "main.ts")]);
    await writeRuntimeConfig();
    await writeBundles();
    await carryProtoFiles();
    await run(compiler, [
      "compile",
      "--quiet",
      "--cached-only",
      `--target=${target}-unknown-linux-gnu`,
      "--no-check", // done above, by the pinned version
      ...PERMISSIONS,
      `--v8-flags=${V8_FLAGS}`,
      `--config=${join(cache, "deno.json")}`,
      `--lock=${join(cache, "deno.lock")}`,
      "--frozen",
      ...LIBNL_SONAMES.flatMap((soname) => ["--include", libraryCopy(soname)]),
      ...["--include", join(cache, "proto")],
      ...BUNDLES.slice(1).flatMap(([, bundle]) => ["--include", join(cache, bundle)]),
      `--output=${unproven}`,
      join(cache, "main.js"),
    ]);
    unifyTimes(unproven);
    if (target === Deno.build.arch) await prove(unproven);
    Deno.renameSync(unproven, output);
  } finally {
    removeIfThere(unproven);
    removeIfThere(cache);
  }
}

async function writeBundles(): Promise<void> {
  const { npmCache } = JSON.parse(await deno(["info", "--json"]));
  for (const [source, bundle] of BUNDLES) {
    const path = join(cache, bundle);
    await deno([
      "bundle",
      "--quiet",
      ...CARRIED_PACKAGES.flatMap((name) => ["--external", name]),
      `--output=${path}`,
      join(ROOT, source),
    ]);
    // Where the packages lie on this machine is no part of the program.
    const text = await Deno.readTextFile(path);
    await Deno.writeTextFile(path, text.replaceAll(`${relative(ROOT, npmCache)}/`, "npm/"));
  }
}

/**
 * Has the executable try each part that it loads late, in an environment that could not lend it one.
 *
 * @throws {OperatorError} If it lacks one.
 */
async function prove(binary: string): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(binary, {
    args: ["self-test"],
    clearEnv: true,
    env: { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin", DENO_DIR: join(cache, "nowhere") },
  }).output();
  if (success) return;
  const decoder = new TextDecoder();
  const said = `${decoder.decode(stdout)}${decoder.decode(stderr)}`.split("\n");
  const failed = said.filter((line) => line.startsWith("failed: "));
  throw new OperatorError(
    `Cannot compile flanneld: the executable does not work, as its self-test says: ${
      (failed.length > 0 ? failed : said.filter((line) => line !== "").slice(-1)).join("; ")
    }`,
  );
}

/**
 * Writes deno.json and deno.lock anew with only those packages that the bundle imports: all that
 * the config names is carried inside, which would double the size and the start-up time. Without
 * the lock the compiler would ask the registry, or the cache of what the registry once said, for
 * the packages' own dependencies; where it has neither, it leaves the packages out without a word.
 */
async function writeRuntimeConfig(): Promise<void> {
  const { modules } = JSON.parse(await deno(["info", "--json", join(ROOT, "main.ts")]));
  const packages = new Set<string>(
    modules.flatMap((module: { npmPackage?: string }) => module.npmPackage ?? []),
  );
  const config = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const imports = Object.entries<string>(config.imports).filter(([name, target]) =>
    CARRIED_PACKAGES.includes(name) && packages.has(target.replace(/^npm:/, ""))
  );
  const { version } = config;
  const runtime = { version, nodeModulesDir: "none", imports: Object.fromEntries(imports) };
  await Deno.writeTextFile(join(cache, "deno.json"), JSON.stringify(runtime));
  const lock: LockFile = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.lock")));
  const specifiers = imports.map(([, target]) => target);
  await Deno.writeTextFile(
    join(cache, "deno.lock"),
    JSON.stringify(lockOnly(lock, specifiers), undefined, 2),
  );
}

/** Of deno.lock, version 5, what is used here. */
interface LockFile {
  readonly version: string;
  readonly specifiers: Readonly<Record<string, string>>;
  readonly npm: Readonly<Record<string, LockedPackage>>;
  readonly workspace: unknown;
}

interface LockedPackage {
  readonly integrity?: string;
  /** Keys of `npm`, without the version where there is only one. */
  readonly dependencies?: readonly string[];
  readonly optionalDependencies?: readonly string[];
}

/** The part of a lock file that `specifiers` need to run, with their dependencies. */
export function lockOnly(lock: LockFile, specifiers: readonly string[]): LockFile {
  const npm: Record<string, LockedPackage> = {};
  const take = (reference: string) => {
    const key = reference in lock.npm
      ? reference
      : Object.keys(lock.npm).find((key) => key.startsWith(`${reference}@`));
    if (key === undefined) throw new Error(`Cannot read deno.lock: it lacks ${reference}`);
    if (key in npm) return;
    const { dependencies, ...locked } = lock.npm[key]!;
    const needed = dependencies?.filter((each) => !each.startsWith("@types/"));
    npm[key] = needed ? { ...locked, dependencies: needed } : locked;
    [...needed ?? [], ...locked.optionalDependencies ?? []].forEach(take);
  };
  for (const specifier of specifiers) {
    const name = specifier.replace(/^npm:/, "").replace(/(?<=.)@.*$/, "");
    take(`${name}@${lock.specifiers[specifier]}`);
  }
  return {
    version: lock.version,
    specifiers: Object.fromEntries(specifiers.map((each) => [each, lock.specifiers[each]!])),
    npm: Object.fromEntries(Object.entries(npm).sort(([a], [b]) => a < b ? -1 : 1)),
    workspace: { dependencies: specifiers },
  };
}

/**
 * Copies the .proto files that etcd3 reads while it loads, and tells the bundled etcd3, which looks
 * for them at `${__dirname}/../proto`, where it is: bundles know no `__dirname`.
 */
async function carryProtoFiles(): Promise<void> {
  const files = new Set<string>();
  const { readFileSync } = fs;
  fs.readFileSync = ((...args: Parameters<typeof readFileSync>) => {
    if (String(args[0]).endsWith(".proto")) files.add(String(args[0]));
    return readFileSync(...args);
  }) as typeof readFileSync;
  try {
    await import("etcd3");
  } finally {
    fs.readFileSync = readFileSync;
  }
  if (files.size === 0) throw new Error("Cannot carry etcd3: it did not read its .proto files");
  Deno.mkdirSync(join(cache, "proto"), { recursive: true });
  for (const file of files) Deno.copyFileSync(file, join(cache, "proto", basename(file)));
  const bundle = join(cache, "main.js");
  const text = await Deno.readTextFile(bundle);
  const directory = 'const __dirname = import.meta.dirname + "/lib";\n';
  await Deno.writeTextFile(bundle, escapeNonAscii(directory + text));
}

/**
 * Source text of the same meaning in ASCII alone: with a single character beyond Latin-1, V8 keeps
 * two bytes of memory for each.
 */
export function escapeNonAscii(source: string): string {
  return source.replaceAll(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Writes libnl to where `--include` and the program's own URL find it: Debian's old packages of it,
 * which need no newer glibc than `denort`. Where those cannot be had, the system's own stands in.
 */
async function carryLibraries(target: Target): Promise<void> {
  Deno.mkdirSync(join(cache, "lib"), { recursive: true });
  for (const [soname, bytes] of await findLibraries(target)) {
    Deno.writeFileSync(libraryCopy(soname), bytes);
  }
}

async function findLibraries(
  target: Target,
): Promise<(readonly [soname: string, bytes: Uint8Array])[]> {
  try {
    const packages = await fetchPackages(pinnedPackages("libnl", TARGETS[target].debian));
    const entries = packages.flatMap(({ entries }) => entries);
    return LIBNL_SONAMES.map((soname) => {
      const bytes = findFile(entries, soname);
      if (bytes === undefined) throw new Error(`Cannot carry ${soname}: no pinned package has it`);
      return [soname, bytes];
    });
  } catch (error) {
    if (!(error instanceof PackageUnavailableError) || target !== Deno.build.arch) throw error;
    const { signal } = new AbortController();
    await ensurePrerequisites(LIBNL_NEEDS, { signal, say: console.error });
    const own = LIBNL_SONAMES.map((soname) => [soname, readSystemLibrary(soname)] as const);
    const glibc = oldestGlibc(own.map(([, bytes]) => bytes));
    console.error(
      `${describeError(error)}. Carrying this machine's libnl instead, which needs glibc ${glibc}`,
    );
    return own;
  }
}

function readSystemLibrary(soname: string): Uint8Array {
  for (const directory of ["/usr/lib", "/lib", "/usr/lib64", "/lib64"]) {
    for (
      const path of [
        join(directory, `${Deno.build.arch}-linux-gnu`, soname),
        join(directory, soname),
      ]
    ) {
      try {
        return Deno.readFileSync(path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  }
  throw new OperatorError(
    `Cannot carry ${soname}: it is not installed; install libnl-3-200 and libnl-route-3-200`,
  );
}

function libraryCopy(soname: string): string {
  return join(cache, "lib", soname);
}

/**
 * Sets the times of the files inside, which `deno compile` notes in its table of them as
 * milliseconds, to one, so that the same sources give the same executable.
 */
function unifyTimes(path: string): void {
  const bytes = Deno.readFileSync(path);
  const text = Buffer.from(bytes.buffer);
  for (let at = text.indexOf(TIME_MARK); at >= 0; at = text.indexOf(TIME_MARK, at + 1)) {
    const time = text.toString("latin1", at + TIME_MARK.length, at + TIME_MARK.length + 14);
    if (/^1\d{12}[,}]$/.test(time)) {
      text.write("1".padEnd(13, "0"), at + TIME_MARK.length, "latin1");
    }
  }
  Deno.writeFileSync(path, bytes);
}

/** The Deno that fits the denort in use. */
async function findCompiler(target: Target): Promise<string> {
  const denort = Deno.env.get("DENORT_BIN");
  if (!denort) return Deno.execPath();
  const version = denortVersion(denort, target);
  if (version === Deno.version.deno) return Deno.execPath();
  console.error(`Compiling with Deno ${version}, the version of ${basename(denort)}`);
  // Ask npx where that version lies, so that what follows runs without npm around it.
  const args = ["--yes", `deno@${version}`, "eval", "console.log(Deno.execPath())"];
  // Otherwise npm asks for minutes.
  return (await run("npx", args, { npm_config_fetch_retries: "1" })).trim();
}

/** The version that a runtime, alone or in an executable, names in its user agent. */
export function runtimeVersion(bytes: Uint8Array): string | undefined {
  const text = new TextDecoder("latin1").decode(bytes);
  return /Deno\/(\d+\.\d+\.\d+)/.exec(text)?.[1];
}

/** The version of a denort that is for `target`. */
function denortVersion(path: string, target: Target): string {
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (cause) {
    const reason = describeError(cause);
    throw new OperatorError(`Cannot read ${path}, which DENORT_BIN names: ${reason}`, { cause });
  }
  const version = runtimeVersion(bytes);
  if (!version) {
    throw new OperatorError(`Cannot tell the version of ${path}: it is no denort (see DENORT_BIN)`);
  }
  if (elfMachine(bytes) !== TARGETS[target].machine) {
    throw new OperatorError(
      `Cannot compile for ${target} with ${path}, which is for another machine (see DENORT_BIN)`,
    );
  }
  return version;
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function report(binary: string): Promise<void> {
  const { size } = Deno.statSync(binary);
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    const { success } = await new Deno.Command(binary, { args: ["--version"] }).output();
    if (!success) throw new Error(`Cannot use ${binary}: --version failed`);
    times.push(performance.now() - started);
  }
  times.sort((a, b) => a - b);
  console.log(
    `${binary}: ${(size / 2 ** 20).toFixed(0)} MiB, --version in ${times[2]!.toFixed(0)} ms ` +
      "(median of 5)",
  );
}
