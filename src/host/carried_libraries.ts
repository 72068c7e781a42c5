/** The copies of libnl inside the compiled binary. @module */
import { join } from "node:path";
import { Libc } from "../../ffi/libc/open.ts";
import { loadForGood } from "../../ffi/shared_library.ts";
import { OperatorError } from "../errors.ts";

/** The libraries inside the executable, beside the bundle of which this is a part. */
const LIBRARY_DIRECTORY = new URL("./lib/", import.meta.url);

/** The libraries that the executable carries, in the order in which they must be loaded. */
export const LIBNL_SONAMES = ["libnl-3.so.200", "libnl-route-3.so.200"] as const;

/** Whose libraries come first. */
export interface LoadCarriedLibrariesOptions {
  /**
   * Where the system has libraries of its own: "system" leaves those in use, "carried" does not.
   *
   * @default {"system"}
   */
  readonly prefer?: "system" | "carried";
}

/**
 * Loads the libraries that the executable carries, where the system has none of its own; opening
 * one by its soname then finds it. They are loaded from memory, so that no directory has to be
 * writable and executable. Does nothing where none are carried, as when run from sources.
 *
 * Returns the names of the libraries taken from the executable.
 *
 * @throws {OperatorError} If they cannot be loaded.
 */
export function loadCarriedLibraries(
  { prefer = "system" }: LoadCarriedLibrariesOptions = {},
): readonly string[] {
  const wanted = LIBNL_SONAMES.filter((name) => prefer === "carried" || !isLoadable(name));
  const carried = wanted.flatMap((name) => {
    try {
      return [{ name, bytes: Deno.readFileSync(new URL(name, LIBRARY_DIRECTORY)) }];
    } catch {
      return []; // nothing is carried; opening it will say which package has it
    }
  });
  loadLibraries(carried);
  return carried.map(({ name }) => name);
}

/** A library's name and the bytes of its file. */
export interface LibraryFile {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Loads `libraries` for good, in order: from memory, or where the kernel forbids executing that
 * (vm.memfd_noexec), from a private temporary directory below TMPDIR.
 *
 * @throws {OperatorError} If neither can be done.
 */
export function loadLibraries(libraries: readonly LibraryFile[]): void {
  if (libraries.length === 0) return;
  const reasons: unknown[] = [];
  for (const way of [loadFromMemory, loadFromFiles]) {
    try {
      way(libraries);
      return;
    } catch (error) {
      reasons.push(error);
    }
  }
  const names = libraries.map(({ name }) => name).join(" and ");
  throw new OperatorError(
    `Cannot load ${names}, which this program carries; set TMPDIR to a directory that programs ` +
      "may be run from, or install them (Debian: libnl-3-200, libnl-route-3-200)",
    { cause: new AggregateError(reasons, "neither from memory nor from files") },
  );
}

function loadFromMemory(libraries: readonly LibraryFile[]): void {
  using stack = new DisposableStack();
  const libc = stack.use(Libc.open());
  for (const { name, bytes } of libraries) {
    // All stay open until the last is loaded: the linker takes the same path for the same library.
    const fd = stack.adopt(libc.memoryFile(name, bytes), (fd) => libc.close(fd));
    loadForGood(`/proc/self/fd/${fd}`);
  }
}

function loadFromFiles(libraries: readonly LibraryFile[]): void {
  const directory = Deno.makeTempDirSync({ prefix: "flanneld-lib-" }); // mode 0700
  try {
    for (const { name, bytes } of libraries) {
      const path = join(directory, name);
      Deno.writeFileSync(path, bytes, { mode: 0o500 });
      loadForGood(path);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function isLoadable(soname: string): boolean {
  try {
    loadForGood(soname);
    return true;
  } catch {
    return false;
  }
}
