/**
 * `deno task test`: installs what is missing, runs every test, and ends with one line of counts.
 * Unit tests run in parallel. Tests that make namespaces mostly wait, so they run in a few lanes, in
 * each one file after the other; those that load the machine or count single packets run alone.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describeError, UsageError } from "../src/errors.ts";
import { cacheModules, ensurePrerequisites, TEST_NEEDS } from "./prerequisites.ts";
import { removeLeftovers } from "./support/namespace.ts";
import { sendSignal } from "./support/process_table.ts";
import {
  addCounts,
  type Counts,
  findFailedFiles,
  NO_REASON,
  parseSkipped,
  parseSummary,
} from "./support/test_report.ts";
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
const PARALLEL = /^(?:src|ffi|tests\/simulator|tests\/support|tests\/vm)\/|^tests\/[^/]+$/;

/**
 * Test files beside which nothing runs: they load the machine, or a stall of another's making would
 * lose the packets that they count.
 */
const ALONE =
  /^tests\/(?:dataplane\/|process\/(?:cloud_(?:cold_start|storm|overflow)|kernel_restart)_test\.ts$)/;

/** Of the tests that mostly wait; each has a file under way. */
const LANES = 2;

/** What `deno test` says when it begins with a file. */
// deno-lint-ignore no-control-regex
const FILE_START = /^(?:\x1b\[[\d;]*m)*running \d+ tests? from /gm;

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
  try {
    return await runAll(options, signal);
  } catch (error) {
    say(describeError(signal.aborted ? signal.reason : error));
    return signal.aborted ? 130 : error instanceof UsageError ? 2 : 1;
  } finally {
    const left = await removeLeftovers({ signal: new AbortController().signal });
    if (left.length > 0) say(`Removed what interrupted tests had left: ${left.join(", ")}`);
  }
}

async function runAll(options: Options, signal: AbortSignal): Promise<number> {
  const files = options.paths.flatMap(findTests).filter((file) => !ONLY_IN_VM.test(file)).sort();
  const vmGroups = options.vmPaths.map(({ paths, ...rest }): VmTestGroup => ({
    files: paths.flatMap(findTests).filter(runsInVm).sort(),
    ...rest,
    ...(options.filter === undefined ? {} : { filter: options.filter }),
    mayBeEmpty: options.filter !== undefined,
  })).filter((group) => group.files.length > 0);
  if (files.length + vmGroups.length === 0) throw new UsageError("Cannot find a test file there");
  if (files.length > 0) await ensurePrerequisites(TEST_NEEDS, { signal, say });
  const units = files.filter((file) => PARALLEL.test(file));
  const alone = files.filter((file) => ALONE.test(file));
  const waiting = files.filter((file) => !PARALLEL.test(file) && !ALONE.test(file));
  const lanes = Array.from(
    { length: LANES },
    (_, lane) => waiting.filter((_, i) => i % LANES === lane),
  );
  if (alone.length + waiting.length > 0) {
    // Processes in namespaces have no way to a registry.
    const programs = ["main.ts", "tests/simulator/main.ts"].map((path) => ROOT + path);
    await cacheModules(programs, { signal, say });
  }
  const run = (group: readonly string[]) => runGroup(group, [], options, signal);
  const unitResult = await runGroup(units, ["--parallel"], options, signal);
  const laneResults = await Promise.all(lanes.map(run));
  const first = [...laneResults, await run(alone)].reduce(addResults);
  const results = [unitResult, await runFailedAgain(first, options, signal)];
  if (vmGroups.length > 0) {
    results.push({ ...await runInVm(vmGroups, signal), failedFiles: [] });
  }
  const { counts, skipped: reasons } = results.reduce(addResults);
  for (const line of reasons) say(`skipped: ${line}`);
  const { passed, failed, skipped } = counts;
  say(`tests: ${passed} passed, ${failed} failed, ${skipped} skipped`);
  // A run of nothing proves nothing.
  return failed > 0 || passed + skipped === 0 ? 1 : 0;
}

interface GroupResult {
  readonly counts: Counts;
  readonly skipped: readonly string[];
  /** Files with a failed test, or that could not be loaded. */
  readonly failedFiles: readonly string[];
}

function addResults(a: GroupResult, b: GroupResult): GroupResult {
  return {
    counts: addCounts(a.counts, b.counts),
    skipped: [...a.skipped, ...b.skipped],
    failedFiles: [...a.failedFiles, ...b.failedFiles],
  };
}

/**
 * Runs the files in which a test failed once more. These tests watch real daemons, kernels and
 * clocks, and a machine that stalls for seconds can fail one; what is broken fails again. Which
 * files needed it is said.
 */
async function runFailedAgain(
  first: GroupResult,
  options: Options,
  signal: AbortSignal,
): Promise<GroupResult> {
  const { counts, failedFiles } = first;
  if (counts.failed === 0 || failedFiles.length === 0) return first;
  say(`Running once more, since tests failed: ${failedFiles.join(", ")}`);
  const again = await runGroup(failedFiles, [], options, signal);
  const steady = failedFiles.filter((file) => !again.failedFiles.includes(file));
  if (again.counts.failed === 0 && steady.length > 0) {
    say(`Unsteady, failed once and passed when run again: ${steady.join(", ")}`);
  }
  const mended = Math.max(0, counts.failed - again.counts.failed);
  return {
    counts: { ...counts, passed: counts.passed + mended, failed: again.counts.failed },
    skipped: first.skipped,
    failedFiles: again.failedFiles,
  };
}

async function runGroup(
  files: readonly string[],
  flags: readonly string[],
  options: Options,
  signal: AbortSignal,
): Promise<GroupResult> {
  signal.throwIfAborted();
  if (files.length === 0) {
    return { counts: { passed: 0, failed: 0, skipped: 0 }, skipped: [], failedFiles: [] };
  }
  const report = await Deno.makeTempFile({ prefix: "flanneld-tests-", suffix: ".xml" });
  try {
    const colour = Deno.stdout.isTerminal() && !Deno.noColor;
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["test", "-A", `--junit-path=${report}`, ...flags],
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
    const [output, status] = await Promise.all([forward(child.stdout), child.status]);
    signal.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    const counts = parseSummary(output);
    // The report has tests that the filter left out as skipped, too.
    const xml = await Deno.readTextFile(report);
    const skipped = parseSkipped(xml)
      .filter((line) => options.filter === undefined || !line.endsWith(NO_REASON));
    const failedFiles = findFailedFiles(files, output);
    if (!counts) return { counts: { passed: 0, failed: 1, skipped: 0 }, skipped, failedFiles };
    // Whatever else made the run fail, such as a file that does not load, is a failure too.
    const failed = status.success ? counts.failed : Math.max(counts.failed, 1);
    return { counts: { ...counts, failed }, skipped, failedFiles };
  } finally {
    await Deno.remove(report);
  }
}

/** Runs tests in the emulated machine; where that cannot be had, it counts as one skipped. */
async function runInVm(
  groups: readonly VmTestGroup[],
  signal: AbortSignal,
): Promise<{ counts: Counts; skipped: readonly string[] }> {
  try {
    return await runTestsInVm(ROOT, groups, { signal, say, onOutput: writeOutput });
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof VmUnavailableError) {
      const line = `tests in a virtual machine [skipped: ${error.message}]`;
      return { counts: { passed: 0, failed: 0, skipped: 1 }, skipped: [line] };
    }
    say(`Cannot run tests in a virtual machine: ${describeError(error)}`);
    return { counts: { passed: 0, failed: 1, skipped: 0 }, skipped: [] };
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
