/**
 * What tests of packages share: whether Debian can be reached, the packages of one compilation, and
 * a bare root to install them in, made of Debian's packages without debootstrap.
 *
 * @module
 */
import { fetchPackages, pinnedPackages } from "../../dist/debian/packages.ts";
import { versionNeeds } from "../../dist/elf.ts";
import { GLIBC_FLOOR, TARGETS } from "../../dist/target.ts";
import { describeError } from "../../src/errors.ts";
import { REPOSITORY } from "../lab/mod.ts";
import { compiledBinary } from "../support/compiled_binary.ts";
import { run } from "../support/run.ts";

/** This machine's architecture, as Debian calls it. */
export const ARCHITECTURE = TARGETS[Deno.build.arch].debian;

/** Why Debian's packages cannot be had; `undefined` if they can. */
export const debianObstacle = await fetchPackages(pinnedPackages("test", ARCHITECTURE)).then(
  () => undefined,
  (error: unknown) => describeError(error),
);

/** Packs `binary` into `output`. */
export async function pack(
  binary: string,
  output: string,
  { signal, env = {}, args = [] }: {
    readonly signal: AbortSignal;
    readonly env?: Readonly<Record<string, string>>;
    readonly args?: readonly string[];
  },
): Promise<void> {
  await run(Deno.execPath(), [
    ...["run", "-A", "--cached-only", `${REPOSITORY}dist/package.ts`],
    ...[`--binary=${binary}`, `--output=${output}`, ...args],
  ], { signal, timeoutMs: 240_000, env });
}

/** Packages of the compiled program, as version 0.1.0, and files of them by how their names end. */
export class Packages {
  private constructor(readonly directory: string) {}

  static async make(signal: AbortSignal): Promise<Packages> {
    const directory = await Deno.makeTempDir({ prefix: "flanneld-packages-" });
    await pack(await compiledBinary(signal), directory, { signal });
    return new Packages(directory);
  }

  /** The path of the one file whose name ends so. */
  file(end: string): string {
    const found = [...Deno.readDirSync(this.directory)].filter(({ name }) => name.endsWith(end));
    if (found.length !== 1) throw new Error(`There are ${found.length} packages *${end}`);
    return `${this.directory}/${found[0]!.name}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** Unpacks the layers of an image into `root`. */
export async function unpackImage(
  archive: string,
  root: string,
  signal: AbortSignal,
): Promise<void> {
  const layout = await Deno.makeTempDir();
  await run("tar", ["-xf", archive, "-C", layout], { signal });
  const [{ Layers }] = JSON.parse(await Deno.readTextFile(`${layout}/manifest.json`));
  await Deno.mkdir(root, { recursive: true });
  for (const layer of Layers) {
    await run("tar", ["-xzf", `${layout}/${layer}`, "-C", root], { signal, timeoutMs: 60_000 });
  }
  await Deno.remove(layout, { recursive: true });
}

/**
 * A root with Debian's libraries and programs for rules, a shell, and a `systemctl` that does nothing
 * but note how it was called.
 */
export class BareRoot implements AsyncDisposable {
  private constructor(readonly path: string) {}

  static async make(image: string, signal: AbortSignal): Promise<BareRoot> {
    const root = new BareRoot(await Deno.makeTempDir({ prefix: "flanneld-root-" }));
    await unpackImage(image, root.path, signal);
    // Its flanneld is not the one that is tried.
    for (const path of ["usr/bin/flanneld", "usr/share/doc/flanneld"]) {
      await Deno.remove(`${root.path}/${path}`, { recursive: true });
    }
    const [busybox] = await fetchPackages(pinnedPackages("test", ARCHITECTURE));
    const program = busybox!.entries.find(({ path }) => path === "bin/busybox");
    if (program?.kind !== "file") throw new Error("Debian's busybox-static has no busybox");
    await Deno.writeFile(`${root.path}/usr/bin/busybox`, program.bytes, { mode: 0o755 });
    for (const name of ["sh", "rm", "cat", "mkdir"]) {
      await Deno.symlink("busybox", `${root.path}/usr/bin/${name}`);
    }
    await Deno.mkdir(`${root.path}/run/systemd/system`, { recursive: true });
    const note = '#!/bin/sh\necho "$*" >> /systemctl.log\n';
    await Deno.writeTextFile(`${root.path}/usr/bin/systemctl`, note, { mode: 0o755 });
    const paragraphs = [...Deno.readDirSync(`${root.path}/var/lib/dpkg/status.d`)].map(({ name }) =>
      Deno.readTextFileSync(`${root.path}/var/lib/dpkg/status.d/${name}`)
        .replace(/\n/, "\nStatus: install ok installed\n")
    );
    const status = `${root.path}/var/lib/dpkg/status`;
    await Deno.writeTextFile(status, paragraphs.join("\n"));
    for (const name of ["info", "updates", "triggers"]) {
      await Deno.mkdir(`${root.path}/var/lib/dpkg/${name}`);
    }
    return root;
  }

  /** How systemctl was called since this was asked last. */
  async systemctlCalls(): Promise<string[]> {
    const path = `${this.path}/systemctl.log`;
    try {
      const text = await Deno.readTextFile(path);
      await Deno.remove(path);
      return text.trim().split("\n");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** Whether a file is in it; a link counts, wherever it leads. */
  has(path: string): boolean {
    try {
      Deno.lstatSync(`${this.path}/${path}`);
      return true;
    } catch {
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** What `files` need that the promised glibc lacks, not going by the order of versions as one text. */
export function newerThanPromised(files: readonly Uint8Array[]): string[] {
  const [, promised] = GLIBC_FLOOR.split(".").map(Number) as [number, number];
  return files.flatMap(versionNeeds)
    .filter(({ version }) => {
      const [, major, minor] = /^GLIBC_(\d+)\.(\d+)/.exec(version) ?? [];
      return Number(major) > 2 || Number(minor) > promised;
    })
    .map(({ library, version }) => `${library} ${version}`);
}
