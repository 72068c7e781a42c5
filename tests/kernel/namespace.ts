import { runProgram } from "../../src/util/process.ts";
import { missingTools, type Tool } from "../prerequisites.ts";
import { patient } from "../support/slowness.ts";

/** A network namespace of a test's own; it and all in it vanish when disposed of. */
export interface TestNamespace extends AsyncDisposable {
  readonly name: string;
  /** For `openNetlink({ namespace })`. */
  readonly path: string;
  /** Runs a program in it; its standard output. @throws {Error} If it fails. */
  run(program: string, ...args: string[]): Promise<string>;
}

async function run(program: string, args: readonly string[]): Promise<string> {
  const { signal } = new AbortController();
  const result = await runProgram(program, args, { signal, timeoutMs: patient(30_000) });
  if (result.code !== 0) {
    throw new Error(`${program} ${args.join(" ")} failed: ${result.stderr.trim()}`);
  }
  return result.stdout;
}

const PREFIX = "flanneld-test-";
let count = 0;

/** Deletes the namespaces of test processes that were killed. */
async function removeLeftovers(): Promise<void> {
  const list = await run("ip", ["netns", "list"]);
  for (const line of list.split("\n")) {
    const name = line.split(" ")[0]!;
    const [, pid] = name.startsWith(PREFIX)
      ? /^(\d+)-\d+$/.exec(name.slice(PREFIX.length)) ?? []
      : [];
    if (pid === undefined) continue;
    try {
      await Deno.stat(`/proc/${pid}`);
    } catch {
      await run("ip", ["netns", "delete", name]);
    }
  }
}

/** Makes a namespace with its loopback link up. Needs root and iproute2. */
export async function createTestNamespace(): Promise<TestNamespace> {
  if (count === 0) await removeLeftovers();
  const name = `${PREFIX}${Deno.pid}-${++count}`;
  await run("ip", ["netns", "add", name]);
  try {
    await run("ip", ["-n", name, "link", "set", "lo", "up"]);
  } catch (error) {
    await run("ip", ["netns", "delete", name]);
    throw error;
  }
  return {
    name,
    path: `/run/netns/${name}`,
    run: (program, ...args) => run("ip", ["netns", "exec", name, program, ...args]),
    async [Symbol.asyncDispose]() {
      await run("ip", ["netns", "delete", name]);
    },
  };
}

/** Why tests that need a namespace cannot run here; `undefined` if they can. */
export function namespaceObstacle(more: readonly Tool[] = []): string | undefined {
  if (Deno.uid() !== 0) return "needs root to make network namespaces";
  return missingTools(["ip", "libnl", "libnl-route", ...more]);
}
