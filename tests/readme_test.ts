/**
 * What the READMEs say of flags, keys, RAM actions, files and messages is what the sources have,
 * and both languages say the same.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { backends, findBackend } from "../src/backends/mod.ts";
import { EcsClient, VpcClient } from "../src/cloud/ali/client.ts";
import { RAM_ACTIONS } from "../src/cloud/ali/rights.ts";
import type { Rpc } from "../src/cloud/ali/rpc.ts";
import { environmentName, type Flag, FLAGS } from "../src/cli/flags.ts";
import { FieldReader } from "../src/config/fields.ts";
import { parseNetworkConfig } from "../src/config/network_config.ts";
import { Prefix } from "../src/net/mod.ts";

const root = join(import.meta.dirname!, "..");

/** A README, taken apart. */
interface Readme {
  readonly name: string;
  readonly text: string;
  /** The text without its fenced blocks. */
  readonly prose: string;
  /** Levels of its headings, in order. */
  readonly headings: readonly number[];
  /** Fenced blocks: the word behind the fence, and the lines. */
  readonly blocks: readonly { readonly language: string; readonly text: string }[];
  /** Tables: rows of trimmed cells, the heading first, the line of dashes left out. */
  readonly tables: readonly (readonly (readonly string[])[])[];
}

function readReadme(name: string): Readme {
  const text = Deno.readTextFileSync(join(root, name));
  const blocks: { language: string; text: string }[] = [];
  const prose = text.replaceAll(/^```(\w*)\n([^]*?)^```$/gm, (_, language, block) => {
    blocks.push({ language, text: block });
    return "";
  });
  const tables: string[][][] = [];
  let inTable = false;
  for (const line of prose.split("\n")) {
    if (line.startsWith("|") && !inTable) tables.push([]);
    inTable = line.startsWith("|");
    if (!inTable || /^[|\s-]+$/.test(line)) continue;
    tables.at(-1)!.push(line.split("|").slice(1, -1).map((cell) => cell.trim()));
  }
  const headings = [...prose.matchAll(/^(#+) /gm)].map((match) => match[1]!.length);
  return { name, text, prose, headings, blocks, tables };
}

/** What stands between backticks. */
function codeSpans(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map((match) => match[1]!);
}

/** The text of a cell that is one code span; `undefined` for prose and for none. */
function onlyCode(cell: string): string | undefined {
  return /^`([^`]+)`$/.exec(cell)?.[1];
}

/** The table whose first row's first cell is `flag`, `key` … in the README's language. */
function tableWith(readme: Readme, firstSpan: string): readonly (readonly string[])[] {
  const table = readme.tables.find((rows) => rows[1]?.[0]?.includes(`\`${firstSpan}\``));
  assert.ok(table, `${readme.name} has no table that begins with ${firstSpan}`);
  return table.slice(1);
}

/** The code spans of each cell; languages differ in their order. */
function codeOfTables({ tables }: Readme): string[][][][] {
  return tables.map((rows) => rows.map((row) => row.map((cell) => codeSpans(cell).sort())));
}

const english = readReadme("README.md");
const chinese = readReadme("README.zh-CN.md");
const both = [english, chinese];

Deno.test("both READMEs have the same headings, blocks, tables and code in each row", () => {
  assert.ok(english.headings.length > 10 && english.tables.length > 5);
  assert.deepEqual(chinese.headings, english.headings);
  const code = ({ text }: { text: string }) => text.replaceAll(/\s+#.*$/gm, "");
  assert.deepEqual(chinese.blocks.map(code), english.blocks.map(code));
  assert.deepEqual(
    codeOfTables(chinese),
    codeOfTables(english),
  );
});

Deno.test("links lead to headings and files that exist", () => {
  for (const { name, text } of both) {
    const anchors = [...text.matchAll(/^#+ (.+)$/gm)].map((match) =>
      // As GitHub makes them.
      match[1]!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
    );
    for (const [, target] of text.matchAll(/\]\(([^)]+)\)/g)) {
      if (/^https:/.test(target!)) continue;
      if (target!.startsWith("#")) assert.ok(anchors.includes(target!.slice(1)), name + target);
      else assert.ok(Deno.statSync(join(root, target!)).isFile);
    }
  }
});

Deno.test("every flag is described with its default", () => {
  for (const readme of both) {
    const rows = tableWith(readme, "--etcd-endpoints");
    const described = new Map(rows.map(([flag, fallback]) => [onlyCode(flag!), fallback]));
    const refused = new Set(codeSpans(readme.prose));
    for (const flag of FLAGS as readonly Flag[]) {
      const fallback = String(flag.default);
      if (flag.refused !== undefined) {
        assert.ok(refused.has(`--${flag.name}=${fallback}`), `${readme.name}: --${flag.name}`);
        continue;
      }
      assert.equal(
        described.get(`--${flag.name}`),
        fallback === "" ? "—" : `\`${fallback}\``,
        `${readme.name}: --${flag.name}`,
      );
      described.delete(`--${flag.name}`);
    }
    assert.deepEqual([...described.keys()], [], `${readme.name} has flags that do not exist`);
  }
});

Deno.test("flags and variables that the READMEs use anywhere exist", () => {
  const names = new Set<string>(FLAGS.map(({ name }) => name));
  const variables = new Set(FLAGS.map(({ name }) => environmentName(name)));
  for (const { name, text } of both) {
    for (const [variable] of text.matchAll(/\bFLANNELD_[A-Z_]*[A-Z]/g)) {
      assert.ok(variables.has(variable), `${name}: ${variable}`);
    }
    for (const [, flag] of text.matchAll(/flanneld --([a-z-]+)/g)) {
      assert.ok(names.has(flag!), `${name}: --${flag}`);
    }
  }
});

/** The keys that `parse` asks for, whatever it makes of them. */
function askedKeys(parse: () => unknown): Set<string> {
  const asked = new Set<string>();
  const { raw, has } = FieldReader.prototype;
  try {
    FieldReader.prototype.raw = function (name) {
      asked.add(name);
      return raw.call(this, name);
    };
    FieldReader.prototype.has = function (name) {
      asked.add(name);
      return has.call(this, name);
    };
    parse();
  } finally {
    FieldReader.prototype.raw = raw;
    FieldReader.prototype.has = has;
  }
  return asked;
}

/** Whether `object` with each key at its documented default means the same as without it. */
function checkDefaults<Object extends Record<string, unknown>>(
  rows: Iterable<readonly [keys: string, fallback: string]>,
  object: Object,
  parse: (object: Object) => unknown,
  where: string,
): void {
  const expected = parse(object);
  for (const [keys, cell] of rows) {
    const fallback = onlyCode(cell);
    if (fallback === undefined) continue;
    for (const key of codeSpans(keys)) {
      const parsed = parse({ ...object, [key]: JSON.parse(fallback) });
      assert.deepEqual(parsed, expected, `${where}: ${key} is not ${fallback} by default`);
    }
  }
}

Deno.test("every key of the network config is described with its default", () => {
  const object = { Network: "10.24.0.0/16", Backend: { Type: "alloc" } };
  const parse = (config: Record<string, unknown>) => parseNetworkConfig(JSON.stringify(config));
  const asked = askedKeys(() => parse(object));
  asked.delete("Type"); // a key of the backend
  for (const readme of both) {
    const rows = tableWith(readme, "Network");
    const described = rows.flatMap(([keys]) => codeSpans(keys!));
    assert.deepEqual(described.toSorted(), [...asked].sort(), readme.name);
    const defaults = rows.map(([keys, fallback]) => [keys!, fallback!] as const);
    checkDefaults(defaults, object, parse, readme.name);
  }
});

Deno.test("every backend is described with its keys and their defaults", () => {
  for (const readme of both) {
    const rows = readme.tables.find((table) => table[0]?.[0] === "`Type`")?.slice(1) ?? [];
    const types = new Set(rows.map(([type]) => onlyCode(type!)));
    assert.deepEqual([...types].sort(), Object.keys(backends).sort(), readme.name);
    for (const type of Object.keys(backends)) {
      const { parseConfig } = findBackend(type);
      const own = rows.filter((row) => onlyCode(row[0]!) === type);
      const described = own.flatMap(([, keys]) => codeSpans(keys!));
      const asked = askedKeys(() => parseConfig({ Type: type }));
      asked.delete("Type");
      assert.deepEqual(described.toSorted(), [...asked].sort(), `${readme.name}: ${type}`);
      const defaults = own.map(([, keys, fallback]) => [keys!, fallback!] as const);
      checkDefaults(defaults, { Type: type }, parseConfig, `${readme.name}: ${type}`);
    }
  }
});

Deno.test("examples of the network config are accepted without a warning", () => {
  for (const { name, blocks } of both) {
    const examples = blocks.flatMap(({ language, text }) =>
      language === "json" ? [text] : [...text.matchAll(/'(\{.*\})'/g)].map((match) => match[1]!)
    ).filter((text) => "Network" in JSON.parse(text));
    assert.ok(examples.length >= 3, `${name} has too few examples`);
    for (const example of examples) {
      const { warnings } = parseNetworkConfig(example, {
        readBackend: ({ type, options }) => findBackend(type).parseConfig(options).warnings,
      });
      assert.deepEqual(warnings, [], example);
    }
  }
});

/** Every action that the clients can call, as RAM names it. */
async function calledActions(): Promise<Set<string>> {
  const all = new Set<string>();
  let called: string[] = [];
  const clientOf = (service: Rpc["service"]): Rpc => ({
    service,
    call(action) {
      called.push(`${service}:${action}`);
      return Promise.reject(new Error("only the name matters"));
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
  const { signal } = new AbortController();
  // Stands for whatever a method takes: an id, a filter, a change, options, or a list with one.
  const single = { signal, destination: Prefix.parse("10.24.7.0/24") };
  const argument = Object.assign([single], single);
  for (const client of [new VpcClient(clientOf("vpc"), "r"), new EcsClient(clientOf("ecs"), "r")]) {
    for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(client))) {
      if (name === "constructor") continue;
      called = [];
      const method = Reflect.get(client, name) as (...args: unknown[]) => Promise<unknown>;
      await method.call(client, argument, argument, argument).catch(() => {});
      assert.equal(called.length, 1, name);
      all.add(called[0]!);
    }
  }
  return all;
}

Deno.test("the RAM policies allow exactly the actions that are called", async () => {
  const called = [...await calledActions()].sort();
  assert.deepEqual(Object.keys(RAM_ACTIONS).sort(), called);
  const ofInterfaces = called.filter((action) => RAM_ACTIONS[action] === "interfaces");
  for (const { name, blocks } of both) {
    const policies = blocks.filter(({ language }) => language === "json")
      .map(({ text }) => JSON.parse(text))
      .filter((value) => "Statement" in value && Array.isArray(value.Statement[0].Action))
      .map((value) => value.Statement[0].Action.toSorted());
    assert.deepEqual(policies, [called, ofInterfaces], name);
  }
});

Deno.test("files and folders that READMEs and ARCHITECTURE.md name exist", () => {
  const architecture = readReadme("ARCHITECTURE.md");
  for (const { name, prose } of [...both, architecture]) {
    const paths = codeSpans(prose)
      .filter((span) =>
        /^(?:(?:src|ffi|tests|dist|\.ci)(?:\/[\w.-]+)*|main\.ts|LICENSE)$/.test(span)
      )
      .filter((span) => span !== "dist/flanneld"); // what the reader compiles
    assert.ok(paths.length > 3, `${name} names ${paths.length} paths`);
    for (const path of paths) assert.ok(exists(join(root, path)), `${name}: ${path}`);
  }
  const folders = [...Deno.readDirSync(join(root, "src"))].filter((entry) => entry.isDirectory);
  for (const { name } of folders) {
    assert.ok(architecture.text.includes(`\`src/${name}\``), `ARCHITECTURE.md lacks src/${name}`);
  }
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

Deno.test("what one sees in a failure is what the sources say", () => {
  const sources = [...sourceTexts(join(root, "src"))].join("\n");
  // String literals that go on in the next line are one text.
  const texts = sources.replaceAll(/["`]\s*\+\s*["`]/g, "");
  const table = english.tables.find((rows) => rows[0]?.length === 4 && rows[0][0] !== "`Type`");
  assert.ok(table && table.length > 20);
  let checked = 0;
  for (const row of table.slice(1)) {
    for (const span of codeSpans(row[2]!)) {
      const fragments = span
        // These frames come from one place, whatever the subject: the reconciler's log of a change,
        // a component's name, and waits.
        .replace(
          /^(?:kernel|firewall|ali-vpc\/routes|subnet file|store): (?:(?:add|replace|remove) )?/,
          "",
        )
        .replace(/^(?:Cannot (.*) yet: …; trying again|Waiting to (.*))$/, "$1$2")
        .split("…")
        .map((fragment) => fragment.replaceAll(/^[\s"():;,]+|[\s"():;,]+$/g, ""));
      for (const fragment of fragments.filter(({ length }) => length > 3)) {
        assert.ok(texts.includes(fragment), `README.md: no source says "${fragment}"`);
        checked++;
      }
    }
  }
  assert.ok(checked > 25, `${checked} texts were checked`);
});

function* sourceTexts(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* sourceTexts(path);
    else if (entry.name.endsWith(".ts") && !entry.name.endsWith("_test.ts")) {
      yield Deno.readTextFileSync(path);
    }
  }
}

Deno.test("the commands use the Deno that CI uses", () => {
  const pin = /npx --yes (deno@[\d.]+) task test/.exec(
    Deno.readTextFileSync(join(root, ".ci", "run")),
  )?.[1];
  assert.ok(pin);
  const { tasks } = JSON.parse(Deno.readTextFileSync(join(root, "deno.json")));
  for (const { name, text, blocks } of both) {
    const versions = new Set([...text.matchAll(/deno@[\d.]+/g)].map(([version]) => version));
    assert.deepEqual([...versions], [pin], name);
    const commands = blocks.map((block) => block.text).join("\n");
    for (const task of ["demo", "test", "compile"]) {
      assert.ok(commands.includes(`npx --yes ${pin} task ${task} `), `${name}: ${task}`);
    }
    for (const [, task] of text.matchAll(/deno(?:@[\d.]+)? task ([a-z]+)/g)) {
      assert.ok(task! in tasks, `${name}: there is no task ${task}`);
    }
  }
});

Deno.test("the unit and the drop-in fit the program and the README", () => {
  const unit = Deno.readTextFileSync(join(root, "dist", "flanneld.service"));
  const dropIn = Deno.readTextFileSync(join(root, "dist", "docker-flannel.conf"));
  const [program] = /^ExecStart=(\S+)/m.exec(unit)!.slice(1);
  const [environment] = /^EnvironmentFile=-(\S+)/m.exec(unit)!.slice(1);
  const options = /--bip=.*/.exec(dropIn)![0];
  const [, capabilities] = /^CapabilityBoundingSet=(.*)$/m.exec(unit)!;
  for (const { name, text } of both) {
    for (const part of [program!, environment!, options, ...capabilities!.split(" ")]) {
      assert.ok(text.includes(part), `${name} does not say ${part}`);
    }
  }
  assert.match(dropIn, /^EnvironmentFile=\/run\/flannel\/subnet\.env$/m);
  // The unit keeps the directory of the default subnet file.
  const { default: subnetFile } = FLAGS.find(({ name }) => name === "subnet-file")!;
  const [, directory] = /^RuntimeDirectory=(\S+)$/m.exec(unit)!;
  assert.equal(subnetFile, `/run/${directory}/subnet.env`);
});
