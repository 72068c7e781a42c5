import { join } from "node:path";

/** Where the libraries lie in the source tree, and so inside the executable. */
export const LIBRARY_DIRECTORY = new URL("../../dist/cache/lib/", import.meta.url);

/** The libraries that the executable carries, in the order in which they must be loaded. */
export const LIBNL_SONAMES = ["libnl-3.so.200", "libnl-route-3.so.200"] as const;

/**
 * Writes the libraries carried inside the executable to a new directory that only this user can
 * enter, and hands it to `open`; the directory is gone when this returns (a loaded library stays
 * mapped). `undefined` is handed over where nothing is carried, as when run from sources.
 */
export function withCarriedLibraries<T>(open: (directory: string | undefined) => T): T {
  const libraries: { name: string; bytes: Uint8Array }[] = [];
  try {
    for (const name of LIBNL_SONAMES) {
      libraries.push({ name, bytes: Deno.readFileSync(new URL(name, LIBRARY_DIRECTORY)) });
    }
  } catch {
    return open(undefined);
  }
  const directory = Deno.makeTempDirSync({ prefix: "flanneld-lib-" }); // mode 0700
  try {
    for (const { name, bytes } of libraries) {
      Deno.writeFileSync(join(directory, name), bytes, { mode: 0o500 });
    }
    return open(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}
