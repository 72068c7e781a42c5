import assert from "node:assert/strict";
import { Libc } from "../libc/open.ts";
import { libcSymbols } from "../libc/symbols.ts";
import { LibraryNotFoundError, openSharedLibrary } from "../shared_library.ts";
import { openLibnl } from "./open.ts";

Deno.test("openSharedLibrary() names the packages of a library that is missing", async () => {
  const directory = await Deno.makeTempDir();
  const packages = { debian: "libno-0", fedora: "libno" };
  try {
    for (const options of [{}, { directory }]) {
      assert.throws(
        () => openSharedLibrary("libno-such.so.0", libcSymbols, packages, options),
        (error) =>
          error instanceof LibraryNotFoundError &&
          error.message === "Cannot load libno-such.so.0: install package libno-0 " +
              "(Debian, Ubuntu) or libno (Fedora, Alibaba Cloud Linux)",
      );
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("openSharedLibrary() takes the copy in the directory where the system has none", async () => {
  const directory = await Deno.makeTempDir();
  try {
    // A library under a name that the system does not know.
    const maps = await Deno.readTextFile("/proc/self/maps");
    const libc = /\S+\/libc\.so\.6$/m.exec(maps)![0];
    await Deno.symlink(libc, `${directory}/libcarried.so.6`);
    const packages = { debian: "libc6", fedora: "glibc" };
    const symbols = { getpid: { parameters: [], result: "i32" } } as const;
    const library = openSharedLibrary("libcarried.so.6", symbols, packages, { directory });
    assert.equal(library.symbols.getpid(), Deno.pid);
    library.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a closed socket or library is a clear error, not a crash", () => {
  using libc = Libc.open();
  using libnl = openLibnl(libc);
  const socket = libnl.openSocket();
  assert.ok(socket.portId > 0);
  socket[Symbol.dispose]();
  socket[Symbol.dispose]();
  assert.throws(() => socket.receive(), /Cannot use netlink socket: it is closed/);
  const other = Libc.open();
  other[Symbol.dispose]();
  assert.throws(() => other.eventfd(), /Cannot call libc: it is closed/);
});

Deno.test("libnl's error codes have texts", () => {
  using libc = Libc.open();
  using libnl = openLibnl(libc);
  assert.throws(() => libnl.check("nl_connect", -4), /nl_connect failed: Try again/);
});
