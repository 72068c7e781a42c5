import assert from "node:assert/strict";
import { runProgram } from "../../src/util/process.ts";
import { toolTest } from "../../tests/prerequisites.ts";
import { Libc } from "../libc/open.ts";
import { libcSymbols } from "../libc/symbols.ts";
import { LibraryNotFoundError, openSharedLibrary } from "../shared_library.ts";
import { NETLINK_ROUTE } from "./constants.ts";
import { openLibnl } from "./open.ts";

Deno.test("openSharedLibrary() names the packages of a library that is missing", () => {
  const packages = { debian: "libno-0", fedora: "libno" };
  assert.throws(
    () => openSharedLibrary("libno-such.so.0", libcSymbols, packages),
    (error) =>
      error instanceof LibraryNotFoundError &&
      error.message === "Cannot load libno-such.so.0: install package libno-0 " +
          "(Debian, Ubuntu) or libno (Fedora, Alibaba Cloud Linux)",
  );
});

toolTest(
  "a closed socket or library is a clear error, not a crash",
  ["libnl", "libnl-route"],
  () => {
    using libc = Libc.open();
    using libnl = openLibnl(libc);
    const socket = libnl.openSocket(NETLINK_ROUTE);
    assert.ok(socket.portId > 0);
    socket[Symbol.dispose]();
    socket[Symbol.dispose]();
    assert.throws(() => socket.receive(), /Cannot use netlink socket: it is closed/);
    const other = Libc.open();
    other[Symbol.dispose]();
    assert.throws(() => other.eventfd(), /Cannot call libc: it is closed/);
  },
);

toolTest("libnl's error codes have texts", ["libnl", "libnl-route"], () => {
  using libc = Libc.open();
  using libnl = openLibnl(libc);
  assert.throws(() => libnl.check("nl_connect", -4), /nl_connect failed: Try again/);
});

toolTest(
  "a socket for which there is no descriptor left is refused by name",
  ["libnl"],
  async () => {
    const [libc, libnl] = ["../libc/open.ts", "./open.ts"].map((path) => import.meta.resolve(path));
    const script = `import { Libc } from "${libc}"; import { openLibnl } from "${libnl}";` +
      "const libnl = openLibnl(Libc.open()); for (;;) libnl.openSocket(0);";
    const { code, stderr } = await runProgram("bash", [
      ...["-c", 'ulimit -n 100; exec "$0" eval --no-check "$1"', Deno.execPath(), script],
    ], { signal: AbortSignal.timeout(60_000), env: { NO_COLOR: "1" } });
    assert.equal(code, 1);
    assert.match(stderr, /nl_connect failed: too many open files/i);
  },
);
