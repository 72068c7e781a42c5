/**
 * `deno task test`: installs what is missing, runs every test, and ends with one line of counts.
 * Unit tests run in parallel. Tests that make namespaces mostly wait, so some files of them are
 * under way at a time; those that load the machine or count single packets run alone, and so does
 * the emulated machine.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describeError, UsageError } from "../src/errors.ts";
import { runProgram } from "../src/util/process.ts";
import { cacheModules, installMissing, TEST_NEEDS } from "./prerequisites.ts";
import { removeLeftovers } from "./support/namespace.ts";
import { sendSignal } from "./support/process_table.ts";
import { NO_REASON, parseSkipped, parseSummary } from "./support/test_report.ts";
import { FAILED, type GroupResult, Results } from "./support/test_results.ts";
import {
  runsInVm,
  runTestsInVm,
  VM_SUITE,
  type VmTestGroup,
  type VmTestPaths,
} from "./vm/run_tests.ts";
import { VmUnavailableError } from "./vm/unavailable.ts";

const ROOT = new URL("../", import.meta.url).pathname;

/** Beyond this something hangs, and ending with a word beats being ended without one. */
const LIMIT_MS = 80 * 60_000;

const USAGE = `Usage: deno task test [options] [path …]
       deno task test:vm [options] [path …]

Runs all tests, or those of the files and directories given. Those of kernel and firewall are run a
second time under Debian's kernel in an emulated machine, unless paths or a filter are given;
"test:vm" does just that. Those in tests/vm/suite are run nowhere else.

  --filter=TEXT      only tests whose name holds TEXT, or matches /TEXT/
  --no-vm            without the emulated machine
  --vm               only in the emulated machine
  --binary[=PATH]    tests of the running daemon use a compiled one (dist/flanneld)
  --help
`;

/** Test files that neither make namespaces nor load the machine. */
const PARALLEL =
  /^(?:src|ffi|tests\/(?:simulator|support|vm))\/|^tests\/(?:[^/]+|dataplane\/(?:forwarding_table|icmp|offload)_test\.ts)$/;

/**
 * Test files beside which nothing runs: they load the machine, or a stall of another's making would
 * lose the packets that they count.
 */
const ALONE =
  /^tests\/(?:dataplane\/|process\/(?:cloud_(?:cold_start|storm|overflow)|kernel_restart)_test\.ts$)/;

/** So many files of tests that mostly wait are under way at a time. */
const LANES = 3;

/** A file that takes longer hangs; it is ended, and counts as failed. */
const FILE_LIMIT_MS = 15 * 60_000;

/** What `deno test` says when it begins with a file. */
// deno-lint-ignore no-control-regex
const FILE_START = /^(?:\x1b\[[\d;]*m)*running \d+ tests? from /gm;

/**
 * Seconds that files of tests that wait take, the longest; the first that matches counts. Only their
 * order matters.
 */
const DURATIONS: readonly (readonly [file: RegExp, seconds: number])[] = [
  [/process\/(?:binary|cloud_cluster_kill|cloud_faults|cloud_kill|secrets|store_outage)_test/, 200],
  [/process\/(?:cloud_|lifecycle_|kernel_matrix|store_lease|store_v2)/, 120],
  [/(?:process|machine)\/|package\/(?:packages|aarch64)/, 80],
  [/store\/etcd_/, 60],
  [/./, 20],
];

/** Test files for the emulated machine alone. */
const ONLY_IN_VM = /^tests\/vm\/suite\//;

interface Options {
  readonly filter: string | undefined;
  readonly binary: string | undefined;
  readonly paths: readonly string[];
  /** Files and directories to run in the emulated machine. */
  readonly vmPaths: readonly VmTestPaths[];
}

if (import.meta.main) Deno.exit(await main());

async function main(): Promise<number> {
  let options: Options | undefined;
  try {
    options = parseOptions(Deno.args);
  } catch (error) {
    say(describeError(error));
    return 2;
  }
  if (!options) {
    say(USAGE.trimEnd());
    return 0;
  }
  const abort = new AbortController();
  const timer = setTimeout(
    () => abort.abort(new Error("the time for all tests is over")),
    LIMIT_MS,
  );
  Deno.unrefTimer(timer);
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(name, () => abort.abort(new Error(`interrupted by ${name}`)));
  }
  const { signal } = abort;
  const results = new Results();
  try {
    await runAll(options, results, signal);
  } catch (error) {
    say(describeError(signal.aborted ? signal.reason : error));
    if (error instanceof UsageError) return 2;
    results.add(FAILED);
  } finally {
    const left = await removeLeftovers({ signal: new AbortController().signal });
    if (left.length > 0) say(`Removed what interrupted tests had left: ${left.join(", ")}`);
  }
  const { counts: { passed, failed, skipped }, reasons } = results;
  for (const line of reasons) say(`skipped: ${line}`);
  say(results.slowest());
  say(results.steadiness());
  say(`tests: ${passed} passed, ${failed} failed, ${skipped} skipped`);
  if (signal.aborted) return 130;
  // A run of nothing proves nothing.
  return failed > 0 || passed + skipped === 0 ? 1 : 0;
}

async function runAll(options: Options, results: Results, signal: AbortSignal): Promise<void> {
  const files = options.paths.flatMap(findTests).filter((file) => !ONLY_IN_VM.test(file)).sort();
  const vmGroups = options.vmPaths.map(({ paths, ...rest }): VmTestGroup => ({
    files: paths.flatMap(findTests).filter(runsInVm).sort(),
    ...rest,
    ...(options.filter === undefined ? {} : { filter: options.filter }),
    mayBeEmpty: options.filter !== undefined,
  })).filter((group) => group.files.length > 0);
  if (files.length + vmGroups.length === 0) throw new UsageError("Cannot find a test file there");
  if (files.length > 0) {
    const { missing, reason } = await installMissing(TEST_NEEDS, { signal, say });
    if (missing.length > 0) {
      const titles = missing.map(({ title }) => title).join(", ");
      say(`Skipping the tests that need ${titles}: ${reason}`);
    }
  }
  const units = files.filter((file) => PARALLEL.test(file));
  const alone = files.filter((file) => ALONE.test(file) && !PARALLEL.test(file));
  const waiting = files.filter((file) => !PARALLEL.test(file) && !ALONE.test(file));
  if (files.length > 0) {
    // Processes in namespaces have no way to a registry.
    const programs = ["main.ts", "tests/simulator/main.ts"].map((path) => ROOT + path);
    await cacheModules(programs, { signal, say });
    if (!await checkTypes(files, signal)) results.add(FAILED);
  }
  results.add(await runGroup(units, ["--parallel"], options, signal));
  const run = async (file: string) => results.add(await runGroup([file], [], options, signal));
  await inLanes(longestFirst(waiting), LANES, run);
  for (const file of alone) await run(file);
  // An emulated machine beside other tests starves, or starves them.
  if (vmGroups.length > 0) results.add(await runInVm(vmGroups, signal));
  await runFailedAgain(results, run);
}

/**
 * Runs the files in which a test failed once more, with nothing beside them. These tests watch real
 * daemons, kernels and clocks, and a machine that stalls for seconds can fail one; what is broken
 * fails again. How many needed it is said at the end: each may hide a race.
 */
async function runFailedAgain(
  results: Results,
  run: (file: string) => Promise<void>,
): Promise<void> {
  const files = results.failedFiles;
  if (files.length === 0) return;
  say(`Running once more, since tests failed: ${files.join(", ")}`);
  for (const file of files) await run(file);
}

/** Gives each item to `work`, `lanes` of them at a time; a lane that is done takes the next. */
async function inLanes<Item>(
  items: readonly Item[],
  lanes: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const lane = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

/** So that no lane is left with a long file when the others have nothing more to do. */
function longestFirst(files: readonly string[]): string[] {
  const seconds = (file: string) => DURATIONS.find(([pattern]) => pattern.test(file))![1];
  return files.toSorted((a, b) => seconds(b) - seconds(a));
}

/** Checks the types of `files` together, which is faster than each alone; says what is wrong. */
async function checkTypes(files: readonly string[], signal: AbortSignal): Promise<boolean> {
  const { code, stderr } = await runProgram(Deno.execPath(), [
    ...["check", "--quiet"],
    ...files.map((file) => ROOT + file),
  ], { signal, timeoutMs: 600_000 });
  if (code !== 0) say(stderr.trimEnd());
  return code === 0;
}

async function runGroup(
  files: readonly string[],
  flags: readonly string[],
  options: Options,
  signal: AbortSignal,
): Promise<GroupResult> {
  signal.throwIfAborted();
  const [file] = files;
  if (file === undefined) return { counts: { passed: 0, failed: 0, skipped: 0 }, reasons: [] };
  const single = files.length === 1 && !PARALLEL.test(file) ? { file } : {};
  const startedAt = performance.now();
  const report = await Deno.makeTempFile({ prefix: "flanneld-tests-", suffix: ".xml" });
  try {
    const colour = Deno.stdout.isTerminal() && !Deno.noColor;
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["test", "-A", "--no-check", `--junit-path=${report}`, ...flags],
        ...(options.filter === undefined
          ? []
          : [`--filter=${options.filter}`, "--permit-no-files"]),
        ...files,
      ],
      cwd: ROOT,
      env: {
        [colour ? "FORCE_COLOR" : "NO_COLOR"]: "1",
        DENO_NO_UPDATE_CHECK: "1",
        ...(options.binary === undefined ? {} : { LAB_BINARY: options.binary }),
      },
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const onAbort = () => sendSignal(child.pid, "SIGKILL");
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => {
      say(`${files.join(", ")}: ended after ${FILE_LIMIT_MS / 60_000} minutes`);
      onAbort();
    }, FILE_LIMIT_MS);
    const [output, status] = await Promise.all([forward(child.stdout), child.status]);
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    const counts = parseSummary(output);
    const seconds = Math.round((performance.now() - startedAt) / 1_000);
    if (!counts) {
      say(`${files.join(", ")}: did not come to its end, in ${seconds} s`);
      return { ...FAILED, ...single, seconds };
    }
    // The report has tests that the filter left out as skipped, too.
    const reasons = parseSkipped(await Deno.readTextFile(report))
      .filter((line) => options.filter === undefined || !line.endsWith(NO_REASON));
    // Whatever else made the run fail, such as a file that does not load, is a failure too.
    const failed = status.success ? counts.failed : Math.max(counts.failed, 1);
    return { counts: { ...counts, failed }, reasons, ...single, seconds };
  } finally {
    await Deno.remove(report);
  }
}

/** Runs tests in the emulated machine; where that cannot be had, it counts as one skipped. */
async function runInVm(
  groups: readonly VmTestGroup[],
  signal: AbortSignal,
): Promise<GroupResult> {
  try {
    // What it writes while other tests run comes in one piece.
    const output: Uint8Array[] = [];
    const onOutput = (bytes: Uint8Array) => void output.push(bytes);
    try {
      const { counts, skipped } = await runTestsInVm(ROOT, groups, { signal, say, onOutput });
      return { counts, reasons: skipped };
    } finally {
      output.forEach(writeOutput);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof VmUnavailableError) {
      const line = `tests in a virtual machine [skipped: ${error.message}]`;
      return { counts: { passed: 0, failed: 0, skipped: 1 }, reasons: [line] };
    }
    say(`Cannot run tests in a virtual machine: ${describeError(error)}`);
    return FAILED;
  }
}

/**
 * Copies a stream to standard output, file by file, as others may write there at the same time;
 * returns it as text.
 */
async function forward(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  let written = 0;
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const starts = [...text.slice(written).matchAll(FILE_START)];
    const end = written + (starts.at(-1)?.index ?? 0);
    write(text.slice(written, end));
    written = end;
  }
  write(text.slice(written));
  return text;
}

/** Test files at or below `path`, relative to the root of the repository. */
function findTests(path: string): string[] {
  const relative = path.replace(/^\.\//, "").replace(/\/+$/, "");
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(ROOT + relative);
  } catch {
    throw new UsageError(`Cannot run the tests in ${path}: there is no such file or directory`);
  }
  if (info.isFile) return [relative];
  return [...Deno.readDirSync(ROOT + relative)].flatMap((entry) => {
    const child = `${relative}/${entry.name}`;
    if (entry.isDirectory) return findTests(child);
    return entry.name.endsWith("_test.ts") ? [child] : [];
  });
}

function parseOptions(args: readonly string[]): Options | undefined {
  let parsed;
  try {
    parsed = parseArgs({
      // A bare --binary means the place where `deno task compile` puts it.
      args: args.map((arg) => arg === "--binary" ? `--binary=${ROOT}dist/flanneld` : arg),
      allowPositionals: true,
      options: {
        filter: { type: "string" },
        binary: { type: "string" },
        vm: { type: "boolean" },
        "no-vm": { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (cause) {
    throw new UsageError(describeError(cause));
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  if (values.vm && values["no-vm"]) throw new UsageError("Cannot use --vm together with --no-vm");
  return {
    filter: values.filter,
    binary: values.binary === undefined ? undefined : Deno.realPathSync(values.binary),
    ...choosePaths(positionals, {
      where: values.vm ? "vm" : values["no-vm"] ? "host" : "both",
      filtered: values.filter !== undefined,
    }),
  };
}

/** What is run on this machine and what in the emulated one. */
function choosePaths(
  given: readonly string[],
  { where, filtered }: { readonly where: "host" | "vm" | "both"; readonly filtered: boolean },
): Pick<Options, "paths" | "vmPaths"> {
  const all = given.length === 0;
  if (where === "vm") return { paths: [], vmPaths: all ? VM_SUITE : [{ paths: given }] };
  const paths = all ? ["src", "ffi", "tests"] : given;
  if (where === "host" || all && filtered) return { paths, vmPaths: [] };
  const onlyInVm = paths.flatMap(findTests).filter((file) => ONLY_IN_VM.test(file));
  return { paths, vmPaths: all ? VM_SUITE : [{ paths: onlyInVm }] };
}

function say(line: string): void {
  write(`${line}\n`);
}

function write(text: string): void {
  writeOutput(new TextEncoder().encode(text));
}

function writeOutput(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}
