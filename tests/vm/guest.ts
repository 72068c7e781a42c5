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

/** Returns 0, or an exit code that differs from it. */
async function runAll(output: Deno.FsFile): Promise<number> {
  const text = await Deno.readTextFile(`${GUEST_PATHS.project}/${REQUEST_FILE}`);
  const { runs, env } = JSON.parse(text) as GuestRequest;
  const started = runs.map(({ name, args }) => ({ name, ...start(args, env) }));
  // One after the other, each from its beginning, whichever ends first.
  for (const { name, written } of started) {
    using log = await Deno.open(`${GUEST_RESULTS}/${name}.log`, { write: true, createNew: true });
    for await (const bytes of written) {
      await write(output, bytes);
      await write(log, bytes);
    }
  }
  const statuses = await Promise.all(started.map(({ status }) => status));
  return statuses.find(({ code }) => code !== 0)?.code ?? 0;
}

/** Starts Deno; what it writes can wait to be read. */
function start(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): { readonly status: Promise<Deno.CommandStatus>; readonly written: ReadableStream<Uint8Array> } {
  const child = new Deno.Command(GUEST_PATHS.denoProgram, {
    args: [...args],
    env: { ...env },
    cwd: GUEST_PATHS.project,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const written = new ReadableStream<Uint8Array>({
    async start(controller) {
      const collect = async (stream: ReadableStream<Uint8Array>) => {
        for await (const bytes of stream) controller.enqueue(bytes);
      };
      await Promise.all([collect(child.stdout), collect(child.stderr)]);
      controller.close();
    },
  });
  return { status: child.status, written };
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
