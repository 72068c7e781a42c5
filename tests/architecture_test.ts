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
  ],
  runtime: [
    ...["net", "util", "ffi", "config", "lease", "state", "reconcile", "store", "backends", "cli"],
    ...["kernel", "firewall", "host", "dataplane", "cloud", "status", "service_manager"],
  ],
  cloud: ["net", "state", "reconcile", "store", "status", "lease", "config", "backends", "util"],
  dataplane: ["net", "util", "ffi", "status"],
  health: ["util", "net", "status"],
  status: ["net", "state", "util", "service_manager"],
  service_manager: ["ffi"],
  cli: ["net", "config", "util"],
  cni: ["net", "util", "host", "reconcile"],
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

/** The files of tests: those of `tests`, and `*_test.ts` beside what they test. */
function allTests(folders = ["tests", "src", "ffi"]): string[] {
  const files: string[] = [];
  const visit = (folder: string) => {
    for (const entry of Deno.readDirSync(folder)) {
      const path = join(folder, entry.name);
      if (entry.isDirectory) visit(path);
      else if (
        entry.name.endsWith(".ts") && (path.startsWith(join(root, "tests")) ||
          entry.name.endsWith("_test.ts"))
      ) files.push(path);
    }
  };
  for (const folder of folders) visit(join(root, folder));
  return files;
}

/** `text` without comments. */
function code(text: string): string {
  return text.replaceAll(/\/\*.*?\*\/|(?<!:)\/\/[^\n]*/gs, "");
}

/** Relative imports of a file, as paths from the project's root. */
function imports(path: string): string[] {
  const text = code(Deno.readTextFileSync(path));
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map((match) =>
    relative(root, normalize(join(dirname(path), match[1]!)))
  );
}

Deno.test("folders import only what lies below them", () => {
  const faults: string[] = [];
  for (const path of sources(join(root, "src"))) {
    const [, folder, ...rest] = relative(root, path).split("/");
    if (rest.length === 0 || folder === "app") continue; // `app` may import everything
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

Deno.test("clouds and backends' runtimes know the store by its interfaces alone", () => {
  const faults = ["src/cloud", "src/runtime"].flatMap((folder) => [...sources(join(root, folder))])
    .flatMap((path) =>
      imports(path).filter((target) => /^src\/store\/(?:etcd|keys|kube)\//.test(target))
        .map((target) => `${relative(root, path)} imports ${target}`)
    );
  assert.deepEqual(faults, []);
});

/** Where the backends' table is: the only file that names a cloud outside of its folder. */
const TABLE_OF_BACKENDS = "src/runtime/mod.ts";

Deno.test("a cloud's folder is imported by the table of backends alone, and the routes know no cloud", () => {
  const faults: string[] = [];
  for (const path of sources(join(root, "src"))) {
    const file = relative(root, path);
    const own = /^src\/cloud\/(\w+)\//.exec(file)?.[1];
    for (const target of imports(path)) {
      const cloud = /^src\/cloud\/(\w+)\//.exec(target)?.[1];
      const isShared = cloud === undefined || cloud === "routes" || cloud === own;
      if (!isShared && file !== TABLE_OF_BACKENDS) faults.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(faults, []);
});

Deno.test("no cloud is named where clouds are all alike", () => {
  const names = [/[Aa]li(?:-|[A-Z])|alibaba/i, /vSwitch|(?:ECS|RAM)/];
  const ids = /(?:vtb|vsw|eni|rte|i)-[a-z0-9]/;
  const faults: string[] = [];
  for (const folder of ["src/cloud/routes", "src/app", "src/runtime"]) {
    for (const path of sources(join(root, folder))) {
      const file = relative(root, path);
      if (file === TABLE_OF_BACKENDS) continue;
      for (const [i, line] of Deno.readTextFileSync(path).split("\n").entries()) {
        if ([...names, ids].some((each) => each.test(line))) {
          faults.push(`${file}:${i + 1}: ${line.trim()}`);
        }
      }
    }
  }
  assert.deepEqual(faults, []);
});

/** What opens a store, and what tries whether its parts are there. */
const KNOW_ETCD = ["src/app/open_store.ts", "src/app/self_check.ts"];

Deno.test("etcd is known where a store is opened alone: nothing else has revisions, keys and lives", () => {
  const faults: string[] = [];
  const words = /\b(?:\w*[rR]evision|ttlSeconds|KeySpace|etcdctl|createdIndex)\b/;
  for (const path of sources(join(root, "src"))) {
    const file = relative(root, path);
    if (file.startsWith("src/store/etcd/")) continue;
    for (const target of imports(path)) {
      const isEtcd = target.startsWith("src/store/etcd/");
      if (isEtcd && !KNOW_ETCD.includes(file)) faults.push(`${file} imports ${target}`);
    }
    if (/^src\/store\/(?:keys|kube)\//.test(file)) continue; // they keep keys, too
    const word = words.exec(code(Deno.readTextFileSync(path)));
    if (word !== null) faults.push(`${file} says ${word[0]}`);
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

/** What a file takes from others: each as `<path> <name>`, `*` for all it re-exports. */
function* imported(path: string, text: string): Generator<string> {
  const resolve = (specifier: string) => relative(root, normalize(join(dirname(path), specifier)));
  for (
    const [, names, from] of text.matchAll(
      /\bimport\s+(?:type\s+)?\{([^}]*)\}\s*from\s*"(\.[^"]+)"/g,
    )
  ) {
    for (const name of names!.matchAll(/(?:type\s+)?(\w+)(?:\s+as\s+\w+)?\s*(?:,|$)/g)) {
      yield `${resolve(from!)} ${name[1]}`;
    }
  }
  // Taken whole or lazily: which parts are used is told by the words of the file.
  for (
    const [, from] of text.matchAll(/\bimport(?:\s+\*\s+as\s+\w+\s+from\s*|\s*\(\s*)"(\.[^"]+)"/g)
  ) {
    for (const [name] of text.matchAll(/\b\w+\b/g)) yield `${resolve(from!)} ${name}`;
  }
}

Deno.test("what src and ffi export, the program or, of what their own file uses, a test imports", () => {
  const program = ["src", "ffi", "dist"].flatMap((folder) => [...sources(join(root, folder))]);
  const texts = new Map(
    [...program, join(root, "main.ts")].map((path) =>
      [path, code(Deno.readTextFileSync(path))] as const
    ),
  );
  const used = new Set([...texts].flatMap(([path, text]) => [...imported(path, text)]));
  // `export … from` hands on what is used of the file that does so.
  for (let before = -1; before !== used.size;) {
    before = used.size;
    for (const [path, text] of texts) {
      for (
        const [, names, from] of text.matchAll(
          /\bexport\s+(?:type\s+)?(\*|\{[^}]*\})\s*from\s*"(\.[^"]+)"/g,
        )
      ) {
        const target = relative(root, normalize(join(dirname(path), from!)));
        const own = `${relative(root, path)} `;
        for (const use of [...used].filter((each) => each.startsWith(own))) {
          const name = use.slice(own.length);
          if (names === "*" || new RegExp(`\\b${name}\\b`).test(names!)) {
            used.add(`${target} ${name}`);
          }
        }
      }
    }
  }
  const tests = allTests().map((path) => Deno.readTextFileSync(path)).join("\n");
  const words = new Set(tests.match(/\b\w+\b/g));
  const faults: string[] = [];
  for (const [path, text] of texts) {
    const name = relative(root, path);
    if (!/^(src|ffi)\//.test(name)) continue;
    const own = text.match(/\b\w+\b/g) ?? [];
    const declared =
      /^export (?:abstract )?(?:async )?(function\*?|const|class|interface|type|enum|let) (\w+)/gm;
    for (const [, kind, word] of text.matchAll(declared)) {
      if (used.has(`${name} ${word}`)) continue;
      const usesItself = own.filter((each) => each === word).length > 1;
      const isType = kind === "interface" || kind === "type";
      if (!usesItself || !(isType || words.has(word!))) faults.push(`${name}: ${word}`);
    }
  }
  assert.deepEqual(faults, [], "delete it, or its `export`");
});

Deno.test("no files import each other in a circle", () => {
  const graph = new Map<string, string[]>();
  for (const path of [...sources(join(root, "src")), ...sources(join(root, "ffi"))]) {
    graph.set(relative(root, path), imports(path));
  }
  const circles = new Set<string>();
  for (const start of graph.keys()) {
    const from = new Map<string, string>();
    const queue = [start];
    for (const file of queue) {
      for (const next of graph.get(file) ?? []) {
        if (from.has(next)) continue;
        from.set(next, file);
        queue.push(next);
      }
    }
    if (!from.has(start)) continue;
    const circle = [start];
    for (let file = from.get(start)!; file !== start; file = from.get(file)!) circle.push(file);
    circles.add(circle.toSorted().join(" "));
  }
  assert.deepEqual([...circles], []);
});

/** All of `src/app`, without tests. */
const APP_LINES = 1_500;
/** A file with more lines says at its top why it is one file. */
const FILE_LINES = 450;

const lines = (path: string) => Deno.readTextFileSync(path).split("\n").length - 1;

Deno.test("src/app holds composition only", () => {
  const total = [...sources(join(root, "src/app"))].reduce((sum, path) => sum + lines(path), 0);
  assert.ok(total <= APP_LINES, `${total} lines`);
});

Deno.test("a long file says why it is one file", () => {
  const faults: string[] = [];
  for (const path of [...sources(join(root, "src")), ...sources(join(root, "ffi"))]) {
    const [head] = Deno.readTextFileSync(path).split("*/");
    if (lines(path) > FILE_LINES && !/\bone\s+(\*\s+)?file\b/i.test(head!)) {
      faults.push(`${relative(root, path)}: ${lines(path)} lines`);
    }
  }
  assert.deepEqual(faults, []);
});
