/**
 * Who may import whom. Arrows go one way: values and plans know nothing of kernels, stores and
 * clouds; only `app` knows all.
 *
 * @module
 */
import assert from "node:assert/strict";
import { dirname, join, normalize, relative } from "node:path";

const root = join(import.meta.dirname!, "..");

/** Folder of `src`: the folders it may import from, besides itself. */
const ALLOWED: Record<string, readonly string[]> = {
  net: [],
  util: [],
  config: ["net", "util"],
  lease: ["net", "config", "util"],
  state: ["net"],
  backends: ["net", "config", "lease", "state", "util"],
  reconcile: ["net", "state", "util", "status"],
  store: ["net", "config", "lease", "util", "status"],
  kernel: ["net", "state", "reconcile", "util", "ffi"],
  firewall: ["net", "state", "reconcile", "util", "status"],
  host: [
    ...["net", "util", "ffi", "config", "lease", "state", "reconcile", "kernel", "firewall"],
    ...["backends", "cli", "status"],
    "app", // planner, kernel tables and network, until they have moved
    "store", // paths of etcd
    "runtime", // PlaneRuntime
  ],
  runtime: [
    ...["net", "util", "ffi", "config", "lease", "state", "reconcile", "store", "backends", "cli"],
    ...["kernel", "firewall", "host", "dataplane", "cloud", "status", "service_manager"],
    "app", // network, and the runtime of ali-vpc, until they have moved
  ],
  cloud: ["net", "state", "reconcile", "store", "status", "lease", "config", "backends", "util"],
  dataplane: ["net", "util", "ffi", "status"],
  health: ["util", "net", "status"],
  status: ["net", "state", "util", "service_manager"],
  service_manager: ["ffi"],
  cli: ["net", "config", "util"],
};

/** Files of `src` itself that any folder but `net` may import. */
const SHARED = ["errors.ts", "secret.ts", "log.ts"];

/** Folders of pure code: no I/O, clock, randomness or log. */
const PURE = ["net", "config", "lease", "state", "backends"];

function* sources(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* sources(path);
    else if (entry.name.endsWith(".ts") && !entry.name.endsWith("_test.ts")) yield path;
  }
}

/** Relative imports of a file, as paths from the project's root. */
function imports(path: string): string[] {
  const text = Deno.readTextFileSync(path);
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map((match) =>
    relative(root, normalize(join(dirname(path), match[1]!)))
  );
}

Deno.test("folders import only what lies below them", () => {
  const faults: string[] = [];
  for (const path of sources(join(root, "src"))) {
    const [, folder, ...rest] = relative(root, path).split("/");
    if (rest.length === 0 || folder === "app") continue;
    const allowed = ALLOWED[folder!];
    if (!allowed) {
      faults.push(`src/${folder} is not in the list of folders`);
      continue;
    }
    for (const target of imports(path)) {
      const [top, next, ...deeper] = target.split("/");
      const name = top === "src" ? (deeper.length === 0 ? `src/${next}` : next!) : top!;
      const shared = SHARED.some((file) => name === `src/${file}`) && folder !== "net";
      if (name !== folder && !shared && !allowed.includes(name)) {
        faults.push(`${relative(root, path)} imports ${target}`);
      }
    }
  }
  assert.deepEqual(faults, []);
});

Deno.test("ffi imports nothing of src, and nothing but tests imports tests", () => {
  const faults: string[] = [];
  for (const path of sources(join(root, "ffi"))) {
    for (const target of imports(path)) {
      if (!target.startsWith("ffi/")) faults.push(`${relative(root, path)} imports ${target}`);
    }
  }
  for (const path of sources(join(root, "src"))) {
    for (const target of imports(path)) {
      if (target.startsWith("tests/")) faults.push(`${relative(root, path)} imports ${target}`);
    }
  }
  assert.deepEqual(faults, []);
});

Deno.test("pure folders touch no Deno API, clock, randomness or console", () => {
  const faults: string[] = [];
  const impure =
    /\bDeno\.(?!customInspect)\w|\bDate\.now|\bnew Date\(\)|\bMath\.random|\bconsole\.|\bfetch\(/;
  for (const folder of PURE) {
    for (const path of sources(join(root, "src", folder))) {
      for (const [i, line] of Deno.readTextFileSync(path).split("\n").entries()) {
        const code = line.replace(/^\s*(\*|\/\/|\/\*\*).*/, "");
        if (impure.test(code.replaceAll(/"[^"]*"/g, '""'))) {
          faults.push(`${relative(root, path)}:${i + 1}: ${line.trim()}`);
        }
      }
    }
  }
  assert.deepEqual(faults, []);
});

Deno.test("no program is run through a shell", () => {
  const faults: string[] = [];
  for (const folder of ["src", "ffi"]) {
    for (const path of sources(join(root, folder))) {
      const text = Deno.readTextFileSync(path);
      if (/\bsh\b["'`]?,?\s*\[?\s*["'`]-c|shell:\s*true|execSync|child_process/.test(text)) {
        faults.push(relative(root, path));
      }
    }
  }
  assert.deepEqual(faults, []);
});

Deno.test("programs get an environment of their own, not the daemon's with its secrets", () => {
  const faults: string[] = [];
  for (const path of sources(join(root, "src"))) {
    const text = Deno.readTextFileSync(path);
    const name = relative(root, path);
    if (/\bnew Deno\.Command\b/.test(text) && name !== "src/util/process.ts") faults.push(name);
    if (/(?<!function )\brunProgram\(/.test(text) && !/\bwholeEnv\b/.test(text)) {
      faults.push(name);
    }
  }
  assert.deepEqual(faults, []);
});

Deno.test("libraries are loaded in ffi alone", () => {
  const faults = [...sources(join(root, "src"))]
    .filter((path) => Deno.readTextFileSync(path).includes("Deno.dlopen"))
    .map((path) => relative(root, path));
  assert.deepEqual(faults, []);
});
