/**
 * Debian packages whose files go into what is built here, pinned by checksum in `lock.json`:
 * downloads and unpacks them. `deno run -A dist/debian/update.ts` writes that file anew.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { describeError, OperatorError } from "../../src/errors.ts";
import { type Bytes, type Entry } from "../package/files.ts";
import { readTar } from "../package/tar.ts";
import { CACHE, run, runForBytes } from "../run.ts";
import type { DebianArchitecture } from "../target.ts";
import lock from "./lock.json" with { type: "json" };

/** A package in one version. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** Below `debian` or `debian-security`, as `debian/pool/main/…`. */
  readonly path: string;
  readonly sha256: string;
}

/** What packages are for: libraries inside the executable, a container image's system, tests. */
export type Purpose = "libnl" | "image" | "test" | "old-system";

/** The shape of `lock.json`. */
export interface DebianLock {
  /** When it was written: at that time snapshot.debian.org has all of it. */
  readonly snapshot: string;
  readonly packages: Readonly<
    Record<Purpose, Readonly<Record<DebianArchitecture, readonly DebianPackage[]>>>
  >;
}

const { snapshot, packages }: DebianLock = lock;

/** The packages pinned for a purpose. */
export function pinnedPackages(
  purpose: Purpose,
  architecture: DebianArchitecture,
): readonly DebianPackage[] {
  return packages[purpose][architecture];
}

/** Where to look, in this order: what is old leaves the first for one of the others. */
function* addresses(path: string): Generator<string> {
  const mirror = Deno.env.get("DEBIAN_MIRROR");
  if (mirror) yield `${mirror.replace(/\/+$/, "")}/${path}`;
  yield `http://deb.debian.org/${path}`;
  yield `http://archive.debian.org/${path}`;
  yield `http://snapshot.debian.org/archive/${path.replace("/", `/${snapshot}/`)}`;
}

/** No mirror has the package; where it is tried offline, this is to be expected. */
export class PackageUnavailableError extends OperatorError {
  override name = "PackageUnavailableError";
}

/**
 * The file of a package, out of the cache or downloaded into it.
 *
 * @throws {PackageUnavailableError} If it cannot be had.
 */
async function download(wanted: DebianPackage): Promise<string> {
  const directory = join(CACHE, "debian");
  const path = join(directory, `${wanted.name}-${wanted.sha256.slice(0, 16)}.deb`);
  const isRight = (bytes: Uint8Array) =>
    createHash("sha256").update(bytes).digest("hex") === wanted.sha256;
  try {
    if (isRight(Deno.readFileSync(path))) return path;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const reasons: string[] = [];
  for (const address of addresses(wanted.path)) {
    const { host } = new URL(address);
    try {
      const response = await fetch(address, { signal: AbortSignal.timeout(120_000) });
      const bytes = await response.bytes();
      if (!response.ok) reasons.push(`${host}: HTTP status ${response.status}`);
      else if (!isRight(bytes)) reasons.push(`${host}: wrong checksum`);
      else {
        Deno.mkdirSync(directory, { recursive: true });
        const part = Deno.makeTempFileSync({ dir: directory });
        Deno.writeFileSync(part, bytes);
        Deno.renameSync(part, path);
        return path;
      }
    } catch (error) {
      reasons.push(`${host}: ${describeError(error)}`);
    }
  }
  throw new PackageUnavailableError(
    `Cannot download Debian's ${wanted.name} ${wanted.version} (${reasons.join("; ")}); ` +
      "DEBIAN_MIRROR names a mirror that can be reached",
  );
}

/** A package with its content. */
export interface UnpackedPackage extends DebianPackage {
  /** Its paragraph of dpkg's status file. */
  readonly control: string;
  readonly entries: readonly Entry[];
}

/**
 * Downloads and unpacks packages, with dpkg-deb.
 *
 * @throws {PackageUnavailableError} If one cannot be had.
 */
export async function fetchPackages(
  wanted: readonly DebianPackage[],
): Promise<readonly UnpackedPackage[]> {
  const unpacked: UnpackedPackage[] = [];
  for (const each of wanted) {
    const path = await download(each);
    const control = await run("dpkg-deb", ["--field", path]);
    const entries = readTar(await runForBytes("dpkg-deb", ["--fsys-tarfile", path]));
    unpacked.push({ ...each, control, entries });
  }
  return unpacked;
}

/** The file behind a name such as `libnl-3.so.200`, links resolved, wherever it lies. */
export function findFile(from: readonly Entry[], name: string): Bytes | undefined {
  const found = from.find(({ path }) => path.endsWith(`/${name}`));
  if (found?.kind === "link") return findFile(from, found.target.split("/").at(-1)!);
  return found?.kind === "file" ? found.bytes : undefined;
}
