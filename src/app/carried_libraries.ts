import { join } from "node:path";

/** Where the libraries lie inside the executable: beside the bundle of which this is a part. */
const LIBRARY_DIRECTORY = new URL("./lib/", import.meta.url);

/** The libraries that the executable carries, in the order in which they must be loaded. */
export const LIBNL_SONAMES = ["libnl-3.so.200", "libnl-route-3.so.200"] as const;

/** Options of {@linkcode loadCarriedLibraries}. */
export interface LoadCarriedLibrariesOptions {
  /**
   * Where the system has libraries of its own: "system" leaves those in use, "carried" does not.
   *
   * @default {"system"}
   */
  readonly prefer?: "system" | "carried";
}

/**
 * Loads the libraries that the executable carries, where the system has none of its own; whoever
 * opens one by its soname afterwards gets it. They are written to a directory that only this user
 * can enter and that is gone when this returns: a loaded library stays mapped. Does nothing where
 * nothing is carried, as when run from sources.
 *
 * Returns the names of the libraries taken from the executable.
 */
export function loadCarriedLibraries(
  { prefer = "system" }: LoadCarriedLibrariesOptions = {},
): readonly string[] {
  const wanted = LIBNL_SONAMES.filter((name) => prefer === "carried" || !load(name));
  const carried = wanted.flatMap((name) => {
    try {
      return [{ name, bytes: Deno.readFileSync(new URL(name, LIBRARY_DIRECTORY)) }];
    } catch {
      return []; // nothing is carried; opening it will say which package has it
    }
  });
  if (carried.length === 0) return [];
  const directory = Deno.makeTempDirSync({ prefix: "flanneld-lib-" }); // mode 0700
  try {
    return carried.filter(({ name, bytes }) => {
      const path = join(directory, name);
      Deno.writeFileSync(path, bytes, { mode: 0o500 });
      return load(path);
    }).map(({ name }) => name);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Loads a library for good: its handle is never closed. */
function load(path: string): boolean {
  try {
    Deno.dlopen(path, {});
    return true;
  } catch {
    return false;
  }
}
