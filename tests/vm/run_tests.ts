import { describeError } from "../../src/errors.ts";
import { cacheModules, ensurePrerequisites, LAB_NEEDS, VM_NEEDS } from "../prerequisites.ts";
import { runProgram } from "../../src/util/process.ts";
import { openNamespaces } from "../support/namespace.ts";
import { SLOWNESS_VARIABLE } from "../support/slowness.ts";
import { type Counts, NO_REASON, parseSkipped, parseSummary } from "../support/test_report.ts";
import { openImage, openModulesDisk, vmCacheDirectory, vmObstacle } from "./image.ts";
import { type MachineResult, readResultDisk, runMachine, writeProjectDisk } from "./machine.ts";
import { VmUnavailableError } from "./unavailable.ts";

/** Options of {@linkcode runTestsInVm}. */
export interface RunTestsInVmOptions {
  readonly signal: AbortSignal;
  /** Only tests whose name holds this, or matches it as `/…/`. */
  readonly filter?: string;
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

/** How many times longer than usual the tests wait: emulated, everything takes 10 times longer. */
const SLOWNESS = 12;

const BOOT_AND_RUN_MS = 15 * 60_000;

/** Files that need what the image lacks, which is the compiler and headers. */
const NOT_IN_VM = ["tests/kernel/ffi_headers_test.ts"];

/**
 * Where the tests are that run in a virtual machine unless others are asked for. Those in
 * `tests/vm/suite` run nowhere else, as they need what kernels for machines like CI's often lack.
 */
export const VM_SUITE = ["tests/kernel", "tests/firewall", "tests/vm/suite"];

/** Whether the tests of this file run in the virtual machine when it is given them. */
export function runsInVm(file: string): boolean {
  return file.endsWith("_test.ts") && !NOT_IN_VM.includes(file);
}

/**
 * Runs test files under Debian's kernel in an emulated machine, with the project as it is now.
 *
 * @param repository Path of the project, with a slash at the end.
 * @param files Test files, relative to it.
 * @throws {VmUnavailableError} If no such machine can be had here; its message says why.
 */
export async function runTestsInVm(
  repository: string,
  files: readonly string[],
  options: RunTestsInVmOptions,
): Promise<VmTestResult> {
  const { signal, say, filter } = options;
  const obstacle = vmObstacle();
  if (obstacle !== undefined) throw new VmUnavailableError(obstacle);
  try {
    await ensurePrerequisites([...LAB_NEEDS, ...VM_NEEDS], options);
  } catch (cause) {
    signal.throwIfAborted();
    throw new VmUnavailableError(describeError(cause), { cause });
  }
  const paths = files.map((file) => repository + file);
  await cacheModules([`${repository}main.ts`, ...paths], options);
  await checkTypes(paths, options);
  const image = await openImage(options);
  const modulesDisk = await openModulesDisk(repository, options);

  await using set = await openNamespaces({ signal });
  const { directory } = set;
  const [namespace] = await set.add(["vm"], { signal });
  const projectDisk = await writeProjectDisk(
    repository,
    {
      args: [
        ...["test", "-A", "--no-check", "--cached-only", "--junit-path=/tmp/results/report.xml"],
        ...(filter === undefined ? [] : [`--filter=${filter}`]),
        ...files,
      ],
      env: { [SLOWNESS_VARIABLE]: String(SLOWNESS), DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
    },
    directory,
    { signal },
  );

  say(`Running tests under Linux ${image.kernelRelease} in a virtual machine`);
  const decoder = new TextDecoder();
  let tail = "";
  const startedAt = performance.now();
  try {
    const result = await runMachine({
      ...{ signal, namespace: namespace!, directory, image, modulesDisk, projectDisk },
      timeoutMs: BOOT_AND_RUN_MS,
      onOutput(bytes) {
        tail = (tail + decoder.decode(bytes, { stream: true })).slice(-4096);
        options.onOutput(bytes);
      },
    });
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    say(`The virtual machine was up for ${seconds} s`);
    return await judge(result, tail, directory, options);
  } catch (error) {
    signal.throwIfAborted();
    say(describeError(error));
    say(await consoleTail(`${directory}/console.log`));
    return { counts: { passed: 0, failed: 1, skipped: 0 }, skipped: [] };
  } finally {
    await keepLogs(directory);
  }
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
  result: MachineResult,
  output: string,
  directory: string,
  options: RunTestsInVmOptions,
): Promise<VmTestResult> {
  const { exitCode } = result;
  if (exitCode === undefined) throw new Error("The virtual machine ended without a verdict");
  const counts = parseSummary(output);
  if (!counts) throw new Error(`The tests in the virtual machine ended early, with ${exitCode}`);
  await readResultDisk(result.resultDisk, directory, options);
  const skipped = parseSkipped(await Deno.readTextFile(`${directory}/report.xml`))
    .filter((line) => options.filter === undefined || !line.endsWith(NO_REASON));
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

/** Copies what may explain the last run to where it stays until the next. */
async function keepLogs(directory: string): Promise<void> {
  const target = `${vmCacheDirectory()}/last-run`;
  await Deno.mkdir(target, { recursive: true });
  for (const name of ["console.log", "dmesg.txt", "report.xml"]) {
    await Deno.copyFile(`${directory}/${name}`, `${target}/${name}`).catch(async (error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      await Deno.remove(`${target}/${name}`).catch(() => {/* nothing of an earlier run either */});
    });
  }
}
