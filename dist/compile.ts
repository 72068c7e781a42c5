// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task compile [--output=FILE]`: type-checks the sources and compiles them with libnl inside
 * to one executable, `dist/flanneld`, then reports its size and start-up time.
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
import { LIBNL_SONAMES } from "../src/app/carried_libraries.ts";

/** What the firewall Tables run. */
const RULE_PROGRAMS = [
  "nft",
  ...["iptables", "ip6tables"].flatMap((name) => [
    name,
    ...["", "-legacy", "-nft"].flatMap((variant) =>
      ["save", "restore"].map((action) => `${name}${variant}-${action}`)
    ),
  ]),
];

/** The least that works: the daemon's own needs, nothing for npm packages beyond them. */
export const PERMISSIONS = [
  "--allow-net", // the store, the cloud's APIs, health; TLS tunnel sockets
  "--allow-ffi", // netlink
  "--allow-read", // subnet.env, certificates, token files; kernel files go through libc
  "--allow-write", // --subnet-file may name any place
  "--allow-env", // pop-core's `debug` enumerates the environment
  "--allow-sys=hostname,osRelease,uid,networkInterfaces",
  `--allow-run=${RULE_PROGRAMS.join(",")}`,
];

/** Smaller young generation: an idle daemon makes little garbage, and 1,000 nodes run it. */
export const V8_FLAGS = "--max-semi-space-size=1";

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

if (import.meta.main) Deno.exit(await main());

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: { output: { type: "string", default: join(root, "dist", "flanneld") } },
  });
  carryLibraries();
  const compiler = await findCompiler();
  const check = await run(Deno.execPath(), ["check", "--quiet", join(root, "main.ts")]);
  if (check !== 0) return check;
  const config = await writeRuntimeConfig();
  for (const [source, bundle] of BUNDLES) {
    const code = await run(Deno.execPath(), [
      "bundle",
      "--quiet",
      ...CARRIED_PACKAGES.flatMap((name) => ["--external", name]),
      `--output=${join(cache, bundle)}`,
      join(root, source),
    ]);
    if (code !== 0) return code;
  }
  await carryProtoFiles();
  const code = await run(compiler[0]!, [
    ...compiler.slice(1),
    "compile",
    "--quiet",
    "--cached-only",
    "--no-check", // done above, by the pinned version
    ...PERMISSIONS,
    `--v8-flags=${V8_FLAGS}`,
    `--config=${config}`,
    "--no-lock", // it was checked against deno.lock just before
    ...LIBNL_SONAMES.flatMap((soname) => ["--include", libraryCopy(soname)]),
    ...["--include", join(cache, "proto")],
    ...BUNDLES.slice(1).flatMap(([, bundle]) => ["--include", join(cache, bundle)]),
    `--output=${values.output}`,
    join(cache, "main.js"),
  ]);
  if (code !== 0) return code;
  await report(values.output);
  return 0;
}

/**
 * Writes deno.json anew with only those packages that the bundle imports, and answers its path:
 * all that the config names is carried inside, which would double the size and the start-up time.
 */
async function writeRuntimeConfig(): Promise<string> {
  const { stdout, success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", join(root, "main.ts")],
  }).output();
  if (!success) {
    throw new Error(`Cannot list the imports: ${new TextDecoder().decode(stderr).trim()}`);
  }
  const { modules } = JSON.parse(new TextDecoder().decode(stdout));
  const packages = new Set<string>(
    modules.flatMap((module: { npmPackage?: string }) => module.npmPackage ?? []),
  );
  const config = JSON.parse(await Deno.readTextFile(join(root, "deno.json")));
  const imports = Object.entries<string>(config.imports).filter(([name, target]) =>
    CARRIED_PACKAGES.includes(name) && packages.has(target.replace(/^npm:/, ""))
  );
  const path = join(cache, "deno.json");
  const { version } = config;
  const runtime = { version, nodeModulesDir: "none", imports: Object.fromEntries(imports) };
  await Deno.writeTextFile(path, JSON.stringify(runtime));
  return path;
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
      throw new Error(
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

/** The program and first arguments of the Deno that fits the denort in use. */
async function findCompiler(): Promise<string[]> {
  const denort = Deno.env.get("DENORT_BIN");
  if (!denort) return [Deno.execPath()];
  const version = denortVersion(denort);
  if (version === Deno.version.deno) return [Deno.execPath()];
  console.error(`Compiling with Deno ${version}, the version of ${basename(denort)}`);
  // Ask npx where that version lies, so that what follows runs without npm around it.
  const { stdout, success, stderr } = await new Deno.Command("npx", {
    args: ["--yes", `deno@${version}`, "eval", "console.log(Deno.execPath())"],
    stderr: "piped",
  }).output();
  if (!success) {
    throw new Error(`Cannot get Deno ${version}: ${new TextDecoder().decode(stderr).trim()}`);
  }
  return [new TextDecoder().decode(stdout).trim()];
}

/** The version that a denort names in its user agent. */
function denortVersion(path: string): string {
  const text = new TextDecoder("latin1").decode(Deno.readFileSync(path));
  const version = /Deno\/(\d+\.\d+\.\d+)/.exec(text)?.[1];
  if (!version) throw new Error(`Cannot tell the version of ${path}: it is no denort`);
  return version;
}

async function run(program: string, args: readonly string[]): Promise<number> {
  const { code } = await new Deno.Command(program, {
    args: [...args],
    env: { DENO_NO_UPDATE_CHECK: "1" },
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  return code;
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
