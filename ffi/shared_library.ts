import { join } from "node:path";

/** Where a shared library comes from. */
export interface OpenLibraryOptions {
  /**
   * A directory that is looked in when the system has no such library (the executable carries its
   * own copy). It must be writable by root only.
   */
  readonly directory?: string;
}

/** A shared library is on neither the system nor in the directory given. */
export class LibraryNotFoundError extends Error {
  override name = "LibraryNotFoundError";
}

/**
 * Loads `soname`: the system's own first, then the copy in `options.directory`.
 *
 * @throws {LibraryNotFoundError} Naming the packages that hold it.
 */
export function openSharedLibrary<Symbols extends Deno.ForeignLibraryInterface>(
  soname: string,
  symbols: Symbols,
  packages: { readonly debian: string; readonly fedora: string },
  options: OpenLibraryOptions = {},
): Deno.DynamicLibrary<Symbols> {
  const paths = [soname, ...(options.directory ? [join(options.directory, soname)] : [])];
  const faults: unknown[] = [];
  for (const path of paths) {
    try {
      return Deno.dlopen(path, symbols);
    } catch (error) {
      // Lacking permission has nothing to do with packages; no other path can help.
      if (error instanceof Deno.errors.NotCapable) throw error;
      faults.push(error);
    }
  }
  throw new LibraryNotFoundError(
    `Cannot load ${soname}: install package ${packages.debian} (Debian, Ubuntu) or ` +
      `${packages.fedora} (Fedora, Alibaba Cloud Linux)`,
    { cause: faults.length === 1 ? faults[0] : new AggregateError(faults) },
  );
}
