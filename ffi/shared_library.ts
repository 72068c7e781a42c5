/** Loading of shared libraries: the one place that calls `Deno.dlopen`. @module */

/** The system has no such shared library. */
export class LibraryNotFoundError extends Error {
  override name = "LibraryNotFoundError";
}

/** Loads a library for good, so that it is found by its soname: the handle is never closed. */
export function loadForGood(path: string): void {
  Deno.dlopen(path, {});
}

/** Loads libc. @throws {LibraryNotFoundError} Where the system has no glibc. */
export function openLibc<Symbols extends Deno.ForeignLibraryInterface>(
  symbols: Symbols,
): Deno.DynamicLibrary<Symbols> {
  return openSharedLibrary("libc.so.6", symbols, { debian: "libc6", fedora: "glibc" });
}

/** Loads `soname`. @throws {LibraryNotFoundError} Naming the packages that hold it. */
export function openSharedLibrary<Symbols extends Deno.ForeignLibraryInterface>(
  soname: string,
  symbols: Symbols,
  packages: { readonly debian: string; readonly fedora: string },
): Deno.DynamicLibrary<Symbols> {
  try {
    return Deno.dlopen(soname, symbols);
  } catch (cause) {
    // A missing permission is no missing package.
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new LibraryNotFoundError(
      `Cannot load ${soname}: install package ${packages.debian} (Debian, Ubuntu) or ` +
        `${packages.fedora} (Fedora, Alibaba Cloud Linux)`,
      { cause },
    );
  }
}
