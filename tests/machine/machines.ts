/**
 * Machines with systemd, Docker and etcd: systemd-nspawn containers, made by a program beside the
 * checkout.
 *
 * @module
 */
import { join } from "node:path";
import { hasMachines, MACHINE_TOOLS, MACHINES, missingTools } from "../prerequisites.ts";
import { binaryObstacle } from "../support/compiled_binary.ts";
import { root } from "../support/documents.ts";
import { run } from "../support/run.ts";

/** Why there can be no machines here; `undefined` if there can. */
export const machinesObstacle = findObstacle();

function findObstacle(): string | undefined {
  if (binaryObstacle !== undefined) return binaryObstacle;
  if (Deno.uid() !== 0) return "needs root";
  return hasMachines()
    ? missingTools(MACHINE_TOOLS)
    : "needs the machines beside the checkout, once made";
}

/** Machines `m1` to `mN` at 10.79.0.1 and so on, until they are disposed. */
export class Machines implements AsyncDisposable {
  readonly #directory: string;
  readonly #signal: AbortSignal;

  private constructor(directory: string, signal: AbortSignal) {
    this.#directory = directory;
    this.#signal = signal;
  }

  static async start(count: number, signal: AbortSignal): Promise<Machines> {
    const machines = new Machines(await Deno.makeTempDir({ dir: "/var/tmp" }), signal);
    try {
      await machines.#run("up", String(count));
    } catch (error) {
      await machines[Symbol.asyncDispose]();
      throw error;
    }
    return machines;
  }

  async #run(verb: string, ...args: string[]): Promise<string> {
    return await run(MACHINES.program, [verb, this.#directory, ...args], {
      signal: this.#signal,
      timeoutMs: 120_000,
    });
  }

  /** What `commands` print, typed in the home directory of machine `m`'s root. */
  async shell(m: number, commands: string): Promise<string> {
    return await this.#run("exec", `m${m}`, "bash", "-euc", `cd /root\n${commands}`);
  }

  async reboot(m: number): Promise<void> {
    await this.#run("reboot", `m${m}`);
  }

  /** The folder that the guide has the operator copy to each host. */
  async putProgram(m: number, binary: string): Promise<void> {
    await this.shell(m, "mkdir -p dist");
    // Not the folders: what other tests compile or download changes there meanwhile.
    for await (const { name, isFile } of Deno.readDir(join(root, "dist"))) {
      if (isFile && name !== "flanneld") {
        await this.put(m, join(root, "dist", name), `/root/dist/${name}`);
      }
    }
    await this.put(m, binary, "/root/dist/flanneld");
  }

  /** Copies a file to machine `m`. */
  async put(m: number, source: string, target: string): Promise<void> {
    await this.#run("put", `m${m}`, source, target);
  }

  /** An image of the machine's own programs, in place of one from a registry. */
  async importImage(m: number): Promise<void> {
    await this.shell(
      m,
      "systemctl start docker; mkdir image; for p in ping ip sleep; do " +
        "cp --parents $(command -v $p) $(ldd $(command -v $p) | grep -o '/[^ ]*') image; done; " +
        "tar -C image -c . | docker import - tools; docker run --rm tools ip addr",
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const signal = AbortSignal.timeout(60_000);
    await run(MACHINES.program, ["down", this.#directory], { signal, timeoutMs: 60_000 });
    await Deno.remove(this.#directory, { recursive: true });
  }
}
