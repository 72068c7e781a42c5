/**
 * What README.md and docs/ say of flags, keys, RAM actions, files, commands and messages is what
 * the sources have, and both languages say the same.
 *
 * @module
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { backends, findBackend } from "../src/runtime/mod.ts";
import { EcsClient } from "../src/cloud/ali/ecs_client.ts";
import { VpcClient } from "../src/cloud/ali/vpc_client.ts";
import { RAM_ACTIONS } from "../src/cloud/ali/rights.ts";
import type { Rpc } from "../src/cloud/ali/rpc.ts";
import { COMMANDS, EXIT_CODES } from "../src/cli/commands.ts";
import { DOCKER_FLAGS, parseDockerOptions } from "../src/cli/docker_opts.ts";
import { environmentName, type Flag, FLAGS, withDashes } from "../src/cli/flags.ts";
import { FieldReader } from "../src/config/fields.ts";
import { parseNetworkConfig } from "../src/config/network_config.ts";
import { Prefix } from "../src/net/mod.ts";
import { SHELL_BLOCKS } from "./shell_blocks.ts";
import {
  codeSpans,
  type Document,
  firstCommand,
  onlyCode,
  readDocument,
  root,
} from "./support/documents.ts";

/** README and docs/ in one language, in the order of their English names. */
class Manual {
  readonly documents: readonly Document[];
  readonly text: string;
  readonly prose: string;
  readonly blocks: Document["blocks"];
  readonly tables: Document["tables"];

  constructor(readonly language: string, names: readonly string[]) {
    this.documents = names.map(readDocument);
    this.text = this.documents.map(({ text }) => text).join("\n");
    this.prose = this.documents.map(({ prose }) => prose).join("\n");
    this.blocks = this.documents.flatMap(({ blocks }) => blocks);
    this.tables = this.documents.flatMap(({ tables }) => tables);
  }

  /** The rows of the one table whose first cell below its heading has `firstSpan`. */
  tableWith(firstSpan: string): readonly (readonly string[])[] {
    const found = this.tables.filter((rows) => rows[1]?.[0]?.includes(`\`${firstSpan}\``));
    assert.equal(found.length, 1, `${this.language}: tables that begin with ${firstSpan}`);
    return found[0]!.slice(1);
  }
}

const guides = namesIn("docs");
const english = new Manual("English", ["README.md", ...guides.map((name) => `docs/${name}`)]);
const chinese = new Manual("中文", [
  "README.zh-CN.md",
  ...guides.map((name) => `docs/zh-CN/${name}`),
]);
const both = [english, chinese];

/** The Markdown files of a folder, sorted. */
function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(join(root, folder))].map(({ name }) => name)
    .filter((name) => name.endsWith(".md")).sort();
}

Deno.test("both languages have the same documents, headings, blocks, tables and code", () => {
  assert.deepEqual(namesIn("docs/zh-CN"), guides);
  const code = ({ text }: { text: string }) => text.replaceAll(/\s+#.*$/gm, "");
  // Languages differ in the order within a cell.
  const codeOfTables = ({ tables }: Document) =>
    tables.map((rows) => rows.map((row) => row.map((cell) => codeSpans(cell).sort())));
  for (const [i, original] of english.documents.entries()) {
    const translated = chinese.documents[i]!;
    assert.deepEqual(translated.headings, original.headings, translated.name);
    assert.deepEqual(translated.blocks.map(code), original.blocks.map(code), translated.name);
    assert.deepEqual(codeOfTables(translated), codeOfTables(original), translated.name);
    // A flag or a variable of the prose is in both.
    const options = ({ prose }: Document) =>
      [...new Set(prose.match(/--[a-z][\w-]+|\bFLANNELD_\w+/g))].sort();
    assert.deepEqual(options(translated), options(original), translated.name);
  }
});

Deno.test("links lead to headings and files that exist", () => {
  const architecture = readDocument("ARCHITECTURE.md");
  for (const { name, text } of [...both.flatMap(({ documents }) => documents), architecture]) {
    const targets = [
      ...text.matchAll(/\]\(([^)]+)\)/g),
      ...text.matchAll(/(?:src|srcset|href)="([^"]+)"/g),
    ].map((match) => match[1]!);
    for (const target of targets) {
      if (/^https?:/.test(target)) continue;
      const [path, anchor] = target.split("#");
      const file = join(root, path === "" ? name : join(dirname(name), path!));
      assert.ok(exists(file), `${name}: ${target}`);
      if (anchor !== undefined) {
        assert.ok(anchorsOf(Deno.readTextFileSync(file)).has(anchor), `${name}: ${target}`);
      }
    }
  }
});

/** The anchors of a document's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  return new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map((match) =>
      match[1]!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
    ),
  );
}

Deno.test("a README is short, names no source file, and leads to every document", () => {
  for (const [{ documents }, folder] of [[english, "docs"], [chinese, "docs/zh-CN"]] as const) {
    const { name, text, prose } = documents[0]!;
    assert.ok(text.split("\n").length <= 150, `${name} has more than 150 lines`);
    assert.deepEqual(prose.match(/`(?:src|ffi|tests)\/[^`]*`/g), null, name);
    for (const guide of guides) {
      assert.ok(prose.includes(`](${folder}/${guide}`), `${name}: ${guide}`);
    }
  }
});

Deno.test("every flag is described once, with its default", () => {
  for (const manual of both) {
    const { language } = manual;
    const rows = manual.tableWith("--etcd-endpoints");
    const described = new Map(rows.map(([flag, fallback]) => [onlyCode(flag!), fallback]));
    assert.equal(described.size, rows.length, `${language}: a flag is described twice`);
    for (const flag of FLAGS as readonly Flag[]) {
      const fallback = String(flag.default);
      assert.equal(
        described.get(`--${flag.name}`),
        fallback === "" ? "—" : `\`${fallback}\``,
        `${language}: --${flag.name}`,
      );
      described.delete(`--${flag.name}`);
    }
    assert.deepEqual([...described.keys()], [], `${language} has flags that do not exist`);
  }
});

Deno.test("the words of which a flag's value may be one are described with it", () => {
  for (const manual of both) {
    const meanings = new Map(
      manual.tableWith("--etcd-endpoints").map(([flag, , meaning]) => [onlyCode(flag!), meaning]),
    );
    for (const { name, value = "", default: fallback } of FLAGS as readonly Flag[]) {
      if (!/^[a-z0-9]+(?:\|[a-z0-9]+)+$/.test(value)) continue;
      const described = new Set(codeSpans(meanings.get(`--${name}`)!));
      for (const word of value.split("|")) {
        const where = `${manual.language}: --${name}=${word}`;
        assert.ok(word === fallback || described.has(word), where);
      }
    }
  }
});

/** Flags in the documents that are other programs', by program. */
const FOREIGN_FLAGS: Readonly<Record<string, string>> = {
  npx: "yes",
  "deno task": "backend hosts quota overflow keep binary filter quiet output target",
  etcd: "advertise-client-urls listen-client-urls enable-v2",
  etcdctl: "endpoints prefix print-value-only",
  docker: "bip mtu rm net cap-add name attachable subnet network",
  systemctl: "now",
  kubernetes: "allocate-node-cidrs",
  "examples of Go's syntax": "x flag",
};

Deno.test("flags and variables that the documents use anywhere exist", () => {
  const names = new Set<string>(FLAGS.map(({ name }) => name));
  const all = new Set([
    ...names,
    ...COMMANDS.flatMap(({ flags }) => flags.map(({ name }) => name)),
    ...Object.values(FOREIGN_FLAGS).flatMap((line) => line.split(" ")),
  ]);
  const variables = new Set(FLAGS.map(({ name }) => environmentName(name)));
  for (const { name, text } of both.flatMap(({ documents }) => documents)) {
    for (const [variable] of text.matchAll(/\bFLANNELD_[A-Z_]*[A-Z]/g)) {
      assert.ok(variables.has(variable), `${name}: ${variable}`);
    }
    for (const [, flag] of text.matchAll(/(?<![\w-])--([a-z][\w-]*)(?![\w…-])/g)) {
      assert.ok(all.has(flag!), `${name}: --${flag}`);
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

Deno.test("every command is described", () => {
  for (const manual of both) {
    const rows = manual.tableWith("flanneld [flags]");
    const described = rows.flatMap(([commands]) => codeSpans(commands!))
      .map((span) => /^flanneld ([a-z][a-z-]*)/.exec(span)?.[1])
      .filter((name) => name !== undefined);
    const commands = COMMANDS.map(({ name }) => name as string);
    assert.deepEqual([...new Set(described)].sort(), commands.sort(), manual.language);
  }
});

Deno.test("every key of the network config is described with its default", () => {
  const object = { Network: "10.24.0.0/16", Backend: { Type: "alloc" } };
  const parse = (config: Record<string, unknown>) => parseNetworkConfig(JSON.stringify(config));
  const asked = askedKeys(() => parse(object));
  asked.delete("Type"); // a key of the backend
  for (const manual of both) {
    const rows = manual.tableWith("Network");
    const described = rows.flatMap(([keys]) => codeSpans(keys!));
    assert.deepEqual(described.toSorted(), [...asked].sort(), manual.language);
    const defaults = rows.map(([keys, fallback]) => [keys!, fallback!] as const);
    checkDefaults(defaults, object, parse, manual.language);
  }
});

Deno.test("every backend is described with its keys and their defaults", () => {
  for (const { language, tables } of both) {
    const rows = tables.find((table) => table[0]?.[0] === "`Type`")?.slice(1) ?? [];
    const types = new Set(rows.map(([type]) => onlyCode(type!)));
    assert.deepEqual([...types].sort(), backends.map(({ type }) => type).sort(), language);
    for (const { type, configure } of backends) {
      const parseConfig = (options: Record<string, unknown>) => {
        const { backend: { config }, warnings } = configure(options);
        return { config, warnings };
      };
      const own = rows.filter((row) => onlyCode(row[0]!) === type);
      const described = own.flatMap(([, keys]) => codeSpans(keys!));
      const asked = askedKeys(() => parseConfig({ Type: type }));
      asked.delete("Type");
      assert.deepEqual(described.toSorted(), [...asked].sort(), `${language}: ${type}`);
      const defaults = own.map(([, keys, fallback]) => [keys!, fallback!] as const);
      checkDefaults(defaults, { Type: type }, parseConfig, `${language}: ${type}`);
    }
  }
});

Deno.test("examples of the network config are accepted without a warning", () => {
  for (const { language, blocks, text } of both) {
    const examples = [
      ...blocks.filter(({ language }) => language === "json").map(({ text }) => text),
      // Arguments of etcdctl and curl, in blocks and in sentences.
      ...[...text.matchAll(/'(?:value=)?(\{\s*"[^']*\})'/g)].map((match) => match[1]!),
    ].filter((example) => "Network" in JSON.parse(example));
    assert.ok(examples.length >= 6, `${language} has ${examples.length} examples`);
    for (const example of examples) {
      const { warnings } = parseNetworkConfig(example, {
        readBackend: ({ type, options }) => findBackend(type).configure(options).warnings,
      });
      assert.deepEqual(warnings, [], example);
    }
  }
});

/** Every action that the clients can call, as RAM names it. */
async function calledActions(): Promise<Set<string>> {
  const all = new Set<string>();
  let called: string[] = [];
  const rpcOf = (service: "vpc" | "ecs"): Rpc => ({
    call(action) {
      called.push(`${service}:${action}`);
      return Promise.reject(new Error("only the name matters"));
    },
  });
  const { signal } = new AbortController();
  // Stands for whatever a method takes: an id, a filter, a change, options, or a list with one.
  const single = { signal, destination: Prefix.parse("10.24.7.0/24") };
  const argument = Object.assign([single], single);
  const vpc = new VpcClient(rpcOf("vpc"), { regionId: "r", vpcId: "v" });
  const calling = (prototype: object) =>
    Object.getOwnPropertyNames(prototype)
      .filter((name) => !["constructor", "isId", "denial", "remedy"].includes(name));
  for (const client of [vpc, vpc.batches, new EcsClient(rpcOf("ecs"), "r")]) {
    const names = client === vpc.batches
      ? ["create", "delete"]
      : calling(Object.getPrototypeOf(client));
    for (const name of names) {
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
  for (const { language, blocks } of both) {
    const policies = blocks.filter(({ language }) => language === "json")
      .map(({ text }) => JSON.parse(text))
      .filter((value) => "Statement" in value && Array.isArray(value.Statement[0].Action))
      .map((value) => value.Statement[0].Action.toSorted());
    assert.deepEqual(policies, [called, ofInterfaces], language);
  }
});

Deno.test("every shell block of the documents is run by a test, or it is said why not", () => {
  const blocks = english.documents.flatMap(({ name, blocks }) => {
    const unknown = blocks.filter(({ language }) => !["sh", "json"].includes(language));
    assert.deepEqual(unknown.map(({ text }) => text), [], `${name}: blocks without a language`);
    return blocks.filter(({ language }) => language === "sh")
      .map(({ text }) => `${name}: ${firstCommand(text)}`);
  });
  assert.deepEqual(Object.keys(SHELL_BLOCKS).sort(), blocks.sort());
  for (const [block, { run, not }] of Object.entries(SHELL_BLOCKS)) {
    assert.ok((run === undefined) !== (not === undefined), block);
    if (run !== undefined) assert.ok(exists(join(root, run)), `${block}: there is no ${run}`);
  }
});

Deno.test("every problem code is described, in English with the program's own words", () => {
  const source = Deno.readTextFileSync(join(root, "src", "status", "model.ts"));
  const [, block] = /const PROBLEM_CODES = \{([^]*?)\n\} as const/.exec(source)!;
  const codes = [...block!.matchAll(/"([a-z-]+)":\s+"([^"]+)"/g)].map((
    [, code, text],
  ) => [code, text]);
  assert.ok(codes.length > 30);
  const described = (manual: Manual) =>
    manual.tableWith("starting").map(([code, text]) => [onlyCode(code!), text]);
  assert.deepEqual(described(english), codes);
  assert.deepEqual(described(chinese).map(([code]) => code), codes.map(([code]) => code));
});

Deno.test("environment variables that the sources read are described", () => {
  const sources = [...sourceTexts(join(root, "src"))].join("\n");
  const read = sources.match(
    /\b(?:ALIBABA_CLOUD_[A-Z0-9_]+|ACCESS_KEY_(?:ID|SECRET)|SSL_CERT_FILE|TMPDIR)\b/g,
  );
  assert.ok(read);
  for (const { language, prose } of both) {
    const spans = new Set(codeSpans(prose));
    for (const name of new Set(read)) assert.ok(spans.has(name), `${language}: ${name}`);
  }
  for (const [name] of english.tableWith("ALIBABA_CLOUD_ECS_METADATA")) {
    assert.ok(read.includes(onlyCode(name!)!), `${name} is not read`);
  }
});

Deno.test("exit codes and the fields of /status are those of the program", () => {
  const sources = [...sourceTexts(join(root, "src"))].join("\n");
  for (const { language, tables } of both) {
    const described = tables.find((rows) => rows[1]?.[0] === "0")?.slice(1).map(([code]) => code);
    assert.deepEqual(described, EXIT_CODES.map(([code]) => String(code)), language);
  }
  const [, block] = /export interface StatusFacts \{([^]*?)\n\}/.exec(sources)!;
  const parts = [...block!.matchAll(/^ {2}readonly (\w+)/gm)].map(([, part]) => part);
  const named = english.tableWith("version").flatMap(([fields]) => codeSpans(fields!));
  assert.deepEqual(named.toSorted(), parts.sort());
  for (const [fields] of english.tableWith("version")) {
    for (const field of codeSpans(fields!)) {
      assert.match(sources, new RegExp(`\\b${field}\\b`), field);
    }
  }
});

Deno.test("files and folders that the documents and ARCHITECTURE.md name exist", () => {
  const architecture = readDocument("ARCHITECTURE.md");
  for (const { name, text } of [...both.flatMap(({ documents }) => documents), architecture]) {
    const paths = codeSpans(text)
      .filter((span) =>
        /^(?:(?:src|ffi|tests|dist|docs|\.ci)(?:\/[\w.-]+)*|main\.ts|LICENSE)$/.test(span)
      )
      .filter((span) => span !== "dist/flanneld"); // what the reader compiles
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
  const table = english.tables.find((rows) => rows[0]?.[0] === "What happens");
  assert.ok(table && table.length > 20);
  // Elsewhere, messages are the code that begins like a sentence.
  const quoted = codeSpans(english.prose).filter((span) => /^[A-Z][a-z]+ [a-z…]/.test(span));
  assert.ok(quoted.includes("Lease kept"));
  let checked = 0;
  for (const span of [...table.slice(1).flatMap((row) => codeSpans(row[2]!)), ...quoted]) {
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
      assert.ok(texts.includes(fragment), `no source says "${fragment}"`);
      checked++;
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
  for (const { language, text, blocks } of both) {
    const versions = new Set([...text.matchAll(/deno@[\d.]+/g)].map(([version]) => version));
    assert.deepEqual([...versions], [pin], language);
    const commands = blocks.map((block) => block.text).join("\n");
    for (const task of ["demo", "test", "compile"]) {
      assert.ok(commands.includes(`npx --yes ${pin} task ${task} `), `${language}: ${task}`);
    }
    for (const [, task] of text.matchAll(/deno(?:@[\d.]+)? task ([a-z]+)/g)) {
      assert.ok(task! in tasks, `${language}: there is no task ${task}`);
    }
  }
});

Deno.test("the flags of docker-opts are those of the program", () => {
  const described = english.tableWith("-f").map(([name]) => onlyCode(name!));
  assert.deepEqual(described, DOCKER_FLAGS.map(({ name }) => withDashes(name)));
});

Deno.test("the unit and the drop-in fit the program and the documents", () => {
  const unit = Deno.readTextFileSync(join(root, "dist", "flanneld.service"));
  const dropIn = Deno.readTextFileSync(join(root, "dist", "docker-flannel.conf"));
  const [program] = /^ExecStart=(\S+)/m.exec(unit)!.slice(1);
  const files = [...unit.matchAll(/^EnvironmentFile=-(\S+)$/gm)].map(([, file]) => file!);
  assert.equal(files.length, 3);
  const [, dockerOpts] = /^ExecStartPre=\S*\/(flanneld docker-opts .*)$/m.exec(dropIn)!;
  const [, capabilities] = /^CapabilityBoundingSet=(.*)$/m.exec(unit)!;
  for (const { language, text } of both) {
    for (const part of [program!, ...files, dockerOpts!, ...capabilities!.split(" ")]) {
      assert.ok(text.includes(part), `${language} does not say ${part}`);
    }
  }
  assert.ok(dropIn.includes(`ExecStartPre=${program} docker-opts`));
  const { output, individual } = parseDockerOptions(dockerOpts!.split(" ").slice(2))!;
  assert.ok(individual);
  assert.ok(dropIn.includes(`EnvironmentFile=-${output}\n`));
  // The unit keeps the directory of the default subnet file.
  const { default: subnetFile } = FLAGS.find(({ name }) => name === "subnet-file")!;
  const [, directory] = /^RuntimeDirectory=(\S+)$/m.exec(unit)!;
  assert.equal(subnetFile, `/run/${directory}/subnet.env`);
});
