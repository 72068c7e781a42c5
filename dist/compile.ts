// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task compile [--output=FILE]`: type-checks the sources and compiles them with libnl inside
 * to one executable, `dist/flanneld`, has it try every part that it loads late, and reports its size
 * and start-up time. A build that has lost a part fails and leaves no executable.
 *
 * `deno compile` downloads the runtime `denort` of its own version. Where that cannot be, the
 * variable DENORT_BIN names one; as compiler and runtime must be of one version, the Deno of that
 * version then does the compiling.
 *
 * @module
 */
import fs from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { LIBNL_SONAMES } from "../src/host/carried_libraries.ts";
import { describeError, OperatorError } from "../src/errors.ts";
import { ensurePrerequisites, LIBNL_NEEDS } from "../tests/prerequisites.ts";
import { describeDownloadFailure } from "./download_failure.ts";

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
export const V8_FLAGS = "--max-semi-space-size=1,--heap-growing-percent=20";

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

const root = join(import.meta.dirname!, "..");

/** What goes into the executable: bundles, and beside them what they look for at `./lib/`. */
const cache = join(root, "dist", "cache");

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(describeError(error));
    if (!(error instanceof OperatorError) && error instanceof Error) console.error(error.stack);
    Deno.exit(1);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: { output: { type: "string", default: join(root, "dist", "flanneld") } },
  });
  const { signal } = new AbortController();
  await ensurePrerequisites(LIBNL_NEEDS, { signal, say: console.error });
  carryLibraries();
  const compiler = await findCompiler();
  await deno(["check", "--quiet", join(root, "main.ts")]);
  await writeRuntimeConfig();
  for (const [source, bundle] of BUNDLES) {
    await deno([
      "bundle",
      "--quiet",
      ...CARRIED_PACKAGES.flatMap((name) => ["--external", name]),
      `--output=${join(cache, bundle)}`,
      join(root, source),
    ]);
  }
  await carryProtoFiles();
  // Under its name only when it was found to be whole.
  const unproven = `${values.output}.unproven`;
  try {
    await run(compiler, [
      "compile",
      "--quiet",
      "--cached-only",
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
    await prove(unproven);
    Deno.renameSync(unproven, values.output);
  } finally {
    removeIfThere(unproven);
  }
  await report(values.output);
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
  const { modules } = JSON.parse(await deno(["info", "--json", join(root, "main.ts")]));
  const packages = new Set<string>(
    modules.flatMap((module: { npmPackage?: string }) => module.npmPackage ?? []),
  );
  const config = JSON.parse(await Deno.readTextFile(join(root, "deno.json")));
  const imports = Object.entries<string>(config.imports).filter(([name, target]) =>
    CARRIED_PACKAGES.includes(name) && packages.has(target.replace(/^npm:/, ""))
  );
  const { version } = config;
  const runtime = { version, nodeModulesDir: "none", imports: Object.fromEntries(imports) };
  await Deno.writeTextFile(join(cache, "deno.json"), JSON.stringify(runtime));
  const lock: LockFile = JSON.parse(await Deno.readTextFile(join(root, "deno.lock")));
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

/** The part of a lock file that `specifiers` need, with their dependencies. */
export function lockOnly(lock: LockFile, specifiers: readonly string[]): LockFile {
  const npm: Record<string, LockedPackage> = {};
  const take = (reference: string) => {
    const key = reference in lock.npm
      ? reference
      : Object.keys(lock.npm).find((key) => key.startsWith(`${reference}@`));
    if (key === undefined) throw new Error(`Cannot read deno.lock: it lacks ${reference}`);
    if (key in npm) return;
    const locked = lock.npm[key]!;
    npm[key] = locked;
    [...locked.dependencies ?? [], ...locked.optionalDependencies ?? []].forEach(take);
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
  await Deno.writeTextFile(bundle, `const __dirname = import.meta.dirname + "/lib";\n${text}`);
}

/** Copies the system's libnl to where `--include` and the program's own URL find it. */
function carryLibraries(): void {
  for (const soname of LIBNL_SONAMES) {
    const found = ["/usr/lib", "/lib", "/usr/lib64", "/lib64"].flatMap((directory) => [
      join(directory, `${Deno.build.arch}-linux-gnu`, soname),
      join(directory, soname),
    ]).find((path) => {
      try {
        return Deno.statSync(path).isFile;
      } catch {
        return false;
      }
    });
    if (!found) {
      throw new OperatorError(
        `Cannot carry ${soname}: it is not installed; install libnl-3-200 and libnl-route-3-200`,
      );
    }
    Deno.mkdirSync(dirname(libraryCopy(soname)), { recursive: true });
    Deno.copyFileSync(found, libraryCopy(soname));
  }
}

function libraryCopy(soname: string): string {
  return join(cache, "lib", soname);
}

/** The Deno that fits the denort in use. */
async function findCompiler(): Promise<string> {
  const denort = Deno.env.get("DENORT_BIN");
  if (!denort) return Deno.execPath();
  const version = denortVersion(denort);
  if (version === Deno.version.deno) return Deno.execPath();
  console.error(`Compiling with Deno ${version}, the version of ${basename(denort)}`);
  // Ask npx where that version lies, so that what follows runs without npm around it.
  const args = ["--yes", `deno@${version}`, "eval", "console.log(Deno.execPath())"];
  // Otherwise npm asks for minutes.
  return (await run("npx", args, { npm_config_fetch_retries: "1" })).trim();
}

/** The version that a denort names in its user agent. */
function denortVersion(path: string): string {
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(path);
  } catch (cause) {
    const reason = describeError(cause);
    throw new OperatorError(`Cannot read ${path}, which DENORT_BIN names: ${reason}`, { cause });
  }
  const text = new TextDecoder("latin1").decode(bytes);
  const version = /Deno\/(\d+\.\d+\.\d+)/.exec(text)?.[1];
  if (!version) {
    throw new OperatorError(`Cannot tell the version of ${path}: it is no denort (see DENORT_BIN)`);
  }
  return version;
}

/** Runs this Deno; returns what it wrote. @throws {OperatorError} If it fails. */
function deno(args: readonly string[]): Promise<string> {
  return run(Deno.execPath(), args);
}

/** @throws {OperatorError} If it fails: in one line, where it could not download something. */
async function run(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const output = await new Deno.Command(program, {
    args: [...args],
    cwd: root,
    env: { DENO_NO_UPDATE_CHECK: "1", RUST_BACKTRACE: "0", ...env },
  }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) =>
    new TextDecoder().decode(bytes)
  ) as [string, string];
  if (output.success) return stdout;
  const command = `${basename(program)} ${args.find((word) => !word.startsWith("-"))}`;
  throw new OperatorError(
    describeDownloadFailure(stderr) ?? `Cannot run "${command}": ${(stderr || stdout).trim()}`,
  );
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
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
