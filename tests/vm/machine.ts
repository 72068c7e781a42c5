import { deadline } from "../../src/util/time.ts";
import type { NetworkNamespace } from "../support/namespace.ts";
import { run } from "../support/run.ts";
import type { VmImage } from "./image.ts";

/** Options of {@linkcode runMachine}. */
export interface RunMachineOptions {
  readonly signal: AbortSignal;
  /** The emulator runs in this one, so that it is gone with it, and is on no network. */
  readonly namespace: NetworkNamespace;
  /** Takes the disk of the results, the console's log and what the emulator itself says. */
  readonly directory: string;
  readonly image: VmImage;
  /** Raw disks beside the image's. What the guest writes on them is forgotten. */
  readonly modulesDisk: string;
  readonly projectDisk: string;
  /** Given what the guest writes for people, as it comes. */
  readonly onOutput: (bytes: Uint8Array) => void;
  readonly timeoutMs: number;
}

/** How a guest ended. */
export interface MachineResult {
  /** What the program in the guest exited with; `undefined` if it never came to tell. */
  readonly exitCode: number | undefined;
  /** The raw disk that the guest wrote its results on. */
  readonly resultDisk: string;
  /** What the kernel and init wrote. */
  readonly consoleFile: string;
}

const MEMORY_MEGABYTES = 2048;
const RESULT_BYTES = 16 << 20;

const KERNEL_PARAMETERS = [
  ...["root=/dev/nvme0n1", "rootfstype=ext4", "rw", "init=/init", "console=ttyS0", "loglevel=5"],
  // Otherwise the first ipip link brings a `tunl0` to each namespace.
  "sysctl.net.core.fb_tunnels_only_for_init_net=1",
  // Ends the emulator, which is told not to reboot.
  "panic=-1",
  // Nothing in here is secret from anything else; it halves the time to boot.
  "mitigations=off",
].join(" ");

/**
 * Boots the image in an emulated machine and waits until it is switched off. The serial ports carry
 * console, output and verdict; no network card.
 *
 * @throws {Error} If the emulator fails, or after `timeoutMs`; it is killed then.
 * @throws `signal.reason` on abort; it is killed then, too.
 */
export async function runMachine(options: RunMachineOptions): Promise<MachineResult> {
  const { directory, image, namespace } = options;
  using limit = deadline(options.timeoutMs, options);
  const { signal } = limit;
  const consoleFile = `${directory}/console.log`;
  const verdictFile = `${directory}/verdict`;
  const resultDisk = `${directory}/results.tar`;
  await Deno.writeFile(resultDisk, new Uint8Array());
  await Deno.truncate(resultDisk, RESULT_BYTES);
  const disks = [
    { file: image.rootDisk, options: "snapshot=on" },
    { file: options.modulesDisk, options: "snapshot=on" },
    { file: options.projectDisk, options: "readonly=on" },
    { file: resultDisk, options: "cache=unsafe" },
  ];
  // Whatever else runs on this machine comes first.
  const command = namespace.command("nice", [
    ...["-n", "10", "qemu-system-x86_64"],
    ...["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"],
    // A /dev/kvm that is there may not work, and figures are to mean the same everywhere. This
    // processor is old enough to have no wide registers, which are slow to emulate.
    ...["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2"],
    ...["-m", String(MEMORY_MEGABYTES), "-kernel", image.kernelFile, "-append", KERNEL_PARAMETERS],
    // ttyS0, ttyS1, ttyS2
    ...["-serial", `file:${consoleFile}`, "-serial", "stdio", "-serial", `file:${verdictFile}`],
    ...["-device", "nvme,id=nvme,serial=1"],
    ...disks.flatMap(({ file, options }, index) => [
      ...["-drive", `file=${file},if=none,id=disk${index},format=raw,${options}`],
      ...["-device", `nvme-ns,bus=nvme,drive=disk${index},nsid=${index + 1}`],
    ]),
  ]);
  const child = new Deno.Command(command.program, {
    args: command.args,
    // For what the guest writes on the disks that are not to change.
    env: { TMPDIR: directory },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal,
  }).spawn();
  const [complaints, status] = await Promise.all([
    new Response(child.stderr).text(),
    child.status,
    forward(child.stdout, options.onOutput),
  ]);
  options.signal.throwIfAborted();
  if (signal.aborted) {
    throw new Error(`The virtual machine was still running after ${options.timeoutMs / 1000} s`);
  }
  if (!status.success) {
    throw new Error(`Cannot run qemu-system-x86_64: it exited with ${status.code}: ${complaints}`);
  }
  const [, code] = /^exit (\d+)$/m.exec(await Deno.readTextFile(verdictFile)) ?? [];
  return { exitCode: code === undefined ? undefined : Number(code), resultDisk, consoleFile };
}

async function forward(
  stream: ReadableStream<Uint8Array>,
  onOutput: (bytes: Uint8Array) => void,
): Promise<void> {
  for await (const bytes of stream) onOutput(bytes);
}

/** Paths of what the tests need, below the root of the repository. */
const PROJECT_PATHS = ["deno.json", "deno.lock", "main.ts", "src", "ffi", "tests", "dist"];
/** Large, and made anew by whoever needs it. */
const PROJECT_LEFT_OUT = ["dist/cache", "dist/flanneld*"];

/** What the guest is to run, all at the same time; the project's disk carries it. */
export interface GuestRequest {
  /** Arguments of Deno. What a run writes comes out as `<name>.log` among the results, too. */
  readonly runs: readonly { readonly name: string; readonly args: readonly string[] }[];
  readonly env: Readonly<Record<string, string>>;
}

/** Name of the file with the {@linkcode GuestRequest}, at the root of the project's disk. */
export const REQUEST_FILE = "vm_request.json";

/** Writes the project's disk: a tar of its files, with the request beside them. */
export async function writeProjectDisk(
  repository: string,
  request: GuestRequest,
  directory: string,
  options: { readonly signal: AbortSignal },
): Promise<string> {
  const disk = `${directory}/project.tar`;
  await Deno.writeTextFile(`${directory}/${REQUEST_FILE}`, JSON.stringify(request));
  await run("tar", [
    ...["-c", "-f", disk, "--owner=0", "--group=0", "--numeric-owner"],
    ...["-C", directory, REQUEST_FILE, "-C", repository],
    ...PROJECT_LEFT_OUT.map((path) => `--exclude=${path}`),
    ...PROJECT_PATHS,
  ], { ...options, timeoutMs: 120_000 });
  return disk;
}

/** Unpacks a results disk into `directory`. */
export async function readResultDisk(
  disk: string,
  directory: string,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  await run("tar", ["-x", "-f", disk, "-C", directory, "--no-same-owner"], options);
}
