/** libnl-route-3, which builds requests for links. @module */
import type { Libnl } from "../libnl/open.ts";
import { openSharedLibrary } from "../shared_library.ts";
import { libnlRouteSymbols } from "./symbols.ts";

/** The functions of libnl-route-3. */
export type LibnlRouteSymbols = Deno.DynamicLibrary<typeof libnlRouteSymbols>["symbols"];

/** libnl-route-3. */
export class LibnlRoute implements Disposable {
  readonly #library: Deno.DynamicLibrary<typeof libnlRouteSymbols>;
  readonly libnl: Libnl;

  /** See {@linkcode openLibnlRoute}. */
  constructor(libnl: Libnl, library: Deno.DynamicLibrary<typeof libnlRouteSymbols>) {
    this.libnl = libnl;
    this.#library = library;
  }

  get symbols(): LibnlRouteSymbols {
    return this.#library.symbols;
  }

  /**
   * Calls `build`, a `rtnl_…_build_…_request`, with a place for its `nl_msg *`, and returns a
   * copy of the message.
   *
   * @throws {LibnlError}
   */
  buildMessage(call: string, build: (place: Uint8Array<ArrayBuffer>) => number) {
    const place = new BigUint64Array(1);
    this.libnl.check(call, build(new Uint8Array(place.buffer)));
    return this.libnl.takeMessage(Deno.UnsafePointer.create(place[0]!)!);
  }

  /** Closes the library handle; every object made by it must be freed before. */
  [Symbol.dispose](): void {
    this.#library.close();
  }
}

/**
 * Opens libnl-route-3. It depends on libnl-3, which the dynamic linker finds by its soname because
 * `libnl` is loaded, even where the executable brought its own copy.
 *
 * @param libnl Outlives what is returned.
 * @throws {LibraryNotFoundError} Naming the packages.
 */
export function openLibnlRoute(libnl: Libnl): LibnlRoute {
  const packages = { debian: "libnl-route-3-200", fedora: "libnl3" };
  return new LibnlRoute(
    libnl,
    openSharedLibrary("libnl-route-3.so.200", libnlRouteSymbols, packages),
  );
}
