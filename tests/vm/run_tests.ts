import { describeError } from "../../src/errors.ts";
import { cacheModules, ensurePrerequisites, LAB_NEEDS, VM_NEEDS } from "../prerequisites.ts";
import { runProgram } from "../../src/util/process.ts";
import { openNamespaces } from "../support/namespace.ts";
import { SLOWNESS_VARIABLE } from "../support/slowness.ts";
import {
  addCounts,
  type Counts,
  NO_REASON,
  parseSkipped,
  parseSummary,
} from "../support/test_report.ts";
import { GUEST_RESULTS } from "./guest.ts";
import { openImage, openModulesDisk, vmCacheDirectory, vmObstacle } from "./image.ts";
import {
  type GuestRequest,
  type MachineResult,
  readResultDisk,
  runMachine,
  writeProjectDisk,
} from "./machine.ts";
import { VmUnavailableError } from "./unavailable.ts";

/** Options of {@linkcode runTestsInVm}. */
export interface RunTestsInVmOptions {
  readonly signal: AbortSignal;
  /** Given the output of the tests, as it comes. */
  readonly onOutput: (bytes: Uint8Array) => void;
  /** Told, one line at a time, what is done. */
  readonly say: (line: string) => void;
}

/** How the tests went. */
export interface VmTestResult {
  readonly counts: Counts;
  /** Names of the tests skipped, with their reasons. */
  readonly skipped: readonly string[];
}

/**
 * How many times longer than usual the tests wait: emulated, everything takes 10 times longer, and
 * twice that on a busy machine.
 */
const SLOWNESS = 24;

const BOOT_AND_RUN_MS = 25 * 60_000;

/** Files that would not see the kernel, and one that needs a compiler, which the image lacks. */
const NOT_IN_VM = [
  ...["tests/kernel/ffi_headers_test.ts", "tests/kernel/ipip_test.ts"],
  "tests/kernel/netlink_codec_test.ts",
];

/** Where tests are, and which of them. */
export interface VmTestPaths {
  /** Files and directories, relative to the root of the repository. */
  readonly paths: readonly string[];
  /** As `--filter` of `deno test`. */
  readonly filter?: string;
}

/** The tests of one run of `deno test`. */
export interface VmTestGroup {
  /** Relative to the root of the repository. */
  readonly files: readonly string[];
  /** As `--filter` of `deno test`. */
  readonly filter?: string;
  /** Whether it is all right that no test matches. */
  readonly mayBeEmpty: boolean;
}

/**
 * What runs in a virtual machine, all at the same time, unless something else is asked for. The tests in `tests/vm/suite`
 * run nowhere else, as they need what kernels for machines like CI's often lack.
 */
export const VM_SUITE: readonly VmTestPaths[] = [
  { paths: ["tests/vm/suite"] },
  { paths: ["tests/kernel"] },
  // All of them would take minutes, as they start many programs.
  { paths: ["tests/firewall"], filter: "/: rules are installed once/" },
];

/** Whether the tests of this file run in the virtual machine when it is given them. */
export function runsInVm(file: string): boolean {
  return file.endsWith("_test.ts") && !NOT_IN_VM.includes(file);
}

/**
 * Runs test files under Debian's kernel in an emulated machine, with the project as it is now.
 *
 * @param repository Path of the project, with a slash at the end.
 * @throws {VmUnavailableError} If no such machine can be had here; its message says why.
 */
export async function runTestsInVm(
  repository: string,
  groups: readonly VmTestGroup[],
  options: RunTestsInVmOptions,
): Promise<VmTestResult> {
  const { signal, say } = options;
  const obstacle = vmObstacle();
  if (obstacle !== undefined) throw new VmUnavailableError(obstacle);
  try {
    await ensurePrerequisites([...LAB_NEEDS, ...VM_NEEDS], options);
  } catch (cause) {
    signal.throwIfAborted();
    throw new VmUnavailableError(describeError(cause), { cause });
  }
  const paths = groups.flatMap(({ files }) => files.map((file) => repository + file));
  await cacheModules([`${repository}main.ts`, ...paths], options);
  await checkTypes(paths, options);
  const image = await openImage(options);
  const modulesDisk = await openModulesDisk(repository, options);

  await using set = await openNamespaces({ signal });
  const { directory } = set;
  const [namespace] = await set.add(["vm"], { signal });
  const request = planRuns(groups);
  const projectDisk = await writeProjectDisk(repository, request, directory, { signal });
  say(`Running tests under Linux ${image.kernelRelease} in a virtual machine`);
  const startedAt = performance.now();
  try {
    const result = await runMachine({
      ...{ signal, namespace: namespace!, directory, image, modulesDisk, projectDisk },
      timeoutMs: BOOT_AND_RUN_MS,
      onOutput: options.onOutput,
    });
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    say(`The virtual machine was up for ${seconds} s`);
    return await judge(groups, result, directory, options);
  } catch (error) {
    signal.throwIfAborted();
    say(describeError(error));
    say(await consoleTail(`${directory}/console.log`));
    say(`All that is left of it is in ${logDirectory()}`);
    return { counts: { passed: 0, failed: 1, skipped: 0 }, skipped: [] };
  } finally {
    await keepLogs(directory);
  }
}

function planRuns(groups: readonly VmTestGroup[]): GuestRequest {
  return {
    runs: groups.map(({ files, filter }, index) => ({
      name: runName(index),
      args: [
        ...["test", "--quiet", "-A", "--no-check", "--cached-only"],
        `--junit-path=${GUEST_RESULTS}/${runName(index)}.xml`,
        ...(filter === undefined ? [] : [`--filter=${filter}`]),
        ...files,
      ],
    })),
    env: { [SLOWNESS_VARIABLE]: String(SLOWNESS), DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
  };
}

/** Names the files of a run among the results. */
function runName(index: number): string {
  return `run-${index + 1}`;
}

/** Inside, this would take minutes. @throws {Error} If there is a fault. */
async function checkTypes(paths: readonly string[], options: RunTestsInVmOptions): Promise<void> {
  const { signal, say } = options;
  const result = await runProgram(Deno.execPath(), ["check", "--quiet", ...paths], {
    ...{ signal, timeoutMs: 300_000 },
    env: { NO_COLOR: "1" },
  });
  if (result.code === 0) return;
  say(result.stderr.trimEnd());
  throw new Error("their types do not fit");
}

/** @throws {Error} If the guest did not get to the end of the tests. */
async function judge(
  groups: readonly VmTestGroup[],
  { exitCode, resultDisk }: MachineResult,
  directory: string,
  options: RunTestsInVmOptions,
): Promise<VmTestResult> {
  if (exitCode === undefined) throw new Error("The virtual machine ended without a verdict");
  await readResultDisk(resultDisk, directory, options);
  let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const skipped: string[] = [];
  for (const [index, { filter, files, mayBeEmpty }] of groups.entries()) {
    const path = `${directory}/${runName(index)}`;
    const summary = parseSummary(await Deno.readTextFile(`${path}.log`));
    if (!summary) throw new Error(`Tests in the virtual machine ended early, with ${exitCode}`);
    if (!mayBeEmpty && summary.passed + summary.failed === 0) {
      throw new Error(`No test ran of ${files.join(", ")}`);
    }
    counts = addCounts(counts, summary);
    // The report has tests that the filter left out as skipped, too.
    const lines = parseSkipped(await Deno.readTextFile(`${path}.xml`));
    skipped.push(...lines.filter((line) => filter === undefined || !line.endsWith(NO_REASON)));
  }
  // Whatever else made a run fail, such as a file that does not load, is a failure too.
  const failed = exitCode === 0 ? counts.failed : Math.max(counts.failed, 1);
  return { counts: { ...counts, failed }, skipped };
}

async function consoleTail(file: string): Promise<string> {
  try {
    const lines = (await Deno.readTextFile(file)).trimEnd().split(/\r*\n/);
    return ["The last lines of its console:", ...lines.slice(-30)].join("\n  ");
  } catch {
    return "It wrote nothing on its console";
  }
}

function logDirectory(): string {
  return `${vmCacheDirectory()}/last-run`;
}

/** Copies what may explain the last run to where it stays until the next. */
async function keepLogs(directory: string): Promise<void> {
  const target = logDirectory();
  await Deno.mkdir(target, { recursive: true });
  for (const name of ["console.log", "dmesg.txt"]) {
    await Deno.remove(`${target}/${name}`).catch(() => {/* this is the first run */});
    await Deno.copyFile(`${directory}/${name}`, `${target}/${name}`).catch((error) => {
      // It did not get that far.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
}
