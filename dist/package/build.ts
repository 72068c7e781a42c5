/** What all packages of one build have in common: executable, version, time, what is inside. @module */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { OperatorError } from "../../src/errors.ts";
import { compile, runtimeVersion } from "../compile.ts";
import { fetchPackages, pinnedPackages } from "../debian/packages.ts";
import { compareVersions, elfFilesIn, elfMachine, oldestGlibc } from "../elf.ts";
import { ROOT, run } from "../run.ts";
import { GLIBC_FLOOR, parseTarget, type Target, TARGETS } from "../target.ts";
import { type Component, debianComponents, npmComponents, runtimeComponent } from "./components.ts";
import type { Bytes } from "./files.ts";

/** What is packed. */
export interface Build {
  readonly version: string;
  /** When the commit was made, in seconds: the time of everything in the packages. */
  readonly epoch: number;
  readonly target: Target;
  readonly executable: Bytes;
  /** What the executable needs of glibc. */
  readonly glibc: string;
  /** What is in the executable. */
  readonly components: readonly Component[];
}

/** Options of `deno task package` and `deno task image` that choose what is packed. */
export const BUILD_OPTIONS = {
  target: { type: "string", default: Deno.build.arch },
  binary: { type: "string" },
} as const satisfies NonNullable<Parameters<typeof parseArgs>[0]>["options"];

/**
 * Compiles flanneld, or takes the executable given as `binary`.
 *
 * @throws {OperatorError} If it cannot be made, or needs more of the system than packages promise.
 */
export async function prepareBuild(
  values: { readonly target: string; readonly binary?: string | undefined },
): Promise<Build> {
  const target = parseTarget(values.target);
  const packages = await fetchPackages(pinnedPackages("libnl", TARGETS[target].debian));
  const executable = values.binary === undefined
    ? await compiled(target)
    : await Deno.readFile(values.binary);
  if (elfMachine(executable) !== TARGETS[target].machine) {
    throw new OperatorError(
      `Cannot pack ${values.binary} for ${target}: it is for another machine`,
    );
  }
  const glibc = oldestGlibc(elfFilesIn(executable))!;
  if (compareVersions(glibc, GLIBC_FLOOR) > 0) {
    throw new OperatorError(
      `Cannot pack an executable that needs glibc ${glibc}: packages promise ${GLIBC_FLOOR}`,
    );
  }
  const { version } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const components = [
    runtimeComponent(runtimeVersion(executable)!),
    ...debianComponents(packages, 11, target),
    ...await npmComponents(),
  ];
  return { version, epoch: await sourceEpoch(), target, executable, glibc, components };
}

async function compiled(target: Target): Promise<Bytes> {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-package-" });
  try {
    await compile(join(directory, "flanneld"), target);
    return await Deno.readFile(join(directory, "flanneld"));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** SOURCE_DATE_EPOCH, or else the time of the commit. */
async function sourceEpoch(): Promise<number> {
  const given = Deno.env.get("SOURCE_DATE_EPOCH");
  const text = given ? given : await run("git", ["log", "-1", "--format=%ct"]);
  const epoch = Number(text);
  if (/^\d+\s*$/.test(text) && epoch > 0) return epoch;
  throw new OperatorError(`Cannot use SOURCE_DATE_EPOCH: "${text}" is no time in seconds`);
}
