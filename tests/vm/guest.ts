/**
 * The program of the virtual machine: started by init when all is mounted, it runs what the
 * request says, and carries output, results and verdict out. The machine is switched off after it.
 *
 * @module
 */
import { GUEST_PATHS } from "./image.ts";
import { type GuestRequest, REQUEST_FILE } from "./machine.ts";

/** What is written here is carried out. */
export const GUEST_RESULTS = "/tmp/results";

if (import.meta.main) await main();

async function main(): Promise<void> {
  using output = await Deno.open("/dev/ttyS1", { write: true });
  let code = 125;
  try {
    await Deno.mkdir(GUEST_RESULTS);
    code = await runAll(output);
    await carryOut();
  } finally {
    using verdict = await Deno.open("/dev/ttyS2", { write: true });
    await write(verdict, new TextEncoder().encode(`exit ${code}\n`));
  }
}

/** Returns 0, or the first exit code that differs from it. */
async function runAll(output: Deno.FsFile): Promise<number> {
  const text = await Deno.readTextFile(`${GUEST_PATHS.project}/${REQUEST_FILE}`);
  const { runs, env } = JSON.parse(text) as GuestRequest;
  let verdict = 0;
  for (const { name, args } of runs) {
    using log = await Deno.open(`${GUEST_RESULTS}/${name}.log`, { write: true, createNew: true });
    const code = await run(args, env, async (bytes) => {
      await write(output, bytes);
      await write(log, bytes);
    });
    verdict ||= code;
  }
  return verdict;
}

async function run(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  onOutput: (bytes: Uint8Array) => Promise<void>,
): Promise<number> {
  const child = new Deno.Command(GUEST_PATHS.denoProgram, {
    args: [...args],
    env: { ...env },
    cwd: GUEST_PATHS.project,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const forward = async (stream: ReadableStream<Uint8Array>) => {
    for await (const bytes of stream) await onOutput(bytes);
  };
  const [status] = await Promise.all([child.status, forward(child.stdout), forward(child.stderr)]);
  return status.code;
}

/** Writes the results disk; what the kernel logged goes with the results. */
async function carryOut(): Promise<void> {
  const log = await new Deno.Command("busybox", { args: ["dmesg"], stderr: "null" }).output();
  await Deno.writeFile(`${GUEST_RESULTS}/dmesg.txt`, log.stdout);
  for (const args of [["tar", "-c", "-f", "/dev/nvme0n4", "-C", GUEST_RESULTS, "."], ["sync"]]) {
    const { success } = await new Deno.Command("busybox", { args, stdin: "null" }).spawn().status;
    if (!success) throw new Error(`Cannot carry out the results: ${args.join(" ")} failed`);
  }
}

async function write(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}
