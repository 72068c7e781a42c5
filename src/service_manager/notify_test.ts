import assert from "node:assert/strict";
import { rememberSecret } from "../secret.ts";
import { feedWatchdog, openNotifier } from "./notify.ts";

/** A service manager's end of the socket; `receive()` answers the next datagram. */
function openReceiver(path: string) {
  const libc = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
    close: { parameters: ["i32"], result: "i32" },
  });
  const fd = libc.symbols.socket(1, 2, 0);
  const name = new TextEncoder().encode(path.replace(/^@/, "\0"));
  const address = new Uint8Array(2 + name.length + (path.startsWith("@") ? 0 : 1));
  address[0] = 1;
  address.set(name, 2);
  assert.equal(libc.symbols.bind(fd, address, address.length), 0);
  const MSG_DONTWAIT = 0x40;
  return {
    receive() {
      const buffer = new Uint8Array(4096);
      const length = libc.symbols.recv(fd, buffer, BigInt(buffer.length), MSG_DONTWAIT);
      return length < 0 ? undefined : new TextDecoder().decode(buffer.subarray(0, Number(length)));
    },
    [Symbol.dispose]() {
      libc.symbols.close(fd);
      libc.close();
    },
  };
}

Deno.test("openNotifier() speaks to sockets by path and by abstract name", async () => {
  const directory = await Deno.makeTempDir();
  try {
    for (const path of [`${directory}/notify`, `@flanneld-test-${crypto.randomUUID()}`]) {
      using receiver = openReceiver(path);
      using notifier = openNotifier(path);
      assert.equal(notifier.problem, undefined);
      assert.equal(notifier.status("waiting for etcd"), true);
      assert.equal(receiver.receive(), "STATUS=waiting for etcd");
      assert.equal(notifier.ready(), true);
      assert.equal(receiver.receive(), "READY=1");
      assert.equal(notifier.stopping(), true);
      assert.equal(receiver.receive(), "STOPPING=1");
      assert.equal(receiver.receive(), undefined);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("Notifier.status() sends one assignment without secrets", () => {
  rememberSecret("canary-of-notify");
  const path = `@flanneld-test-${crypto.randomUUID()}`;
  using receiver = openReceiver(path);
  using notifier = openNotifier(path);
  notifier.status("denied canary-of-notify\nREADY=1 " + "x".repeat(10_000));
  const text = receiver.receive()!;
  assert.match(text, /^STATUS=denied \[redacted\] READY=1 x+$/);
  assert.ok(text.length < 600);
});

Deno.test("openNotifier() does nothing where there is nobody to notify", () => {
  for (const path of [undefined, "", "/nonexistent/notify"]) {
    using notifier = openNotifier(path);
    assert.equal(notifier.problem, undefined);
    assert.equal(notifier.ready(), false);
    assert.equal(notifier.status("x"), false);
  }
  for (const path of ["relative", "vsock:2:1", "@", "/" + "x".repeat(107), "/a\0b"]) {
    using notifier = openNotifier(path);
    assert.match(notifier.problem!, /NOTIFY_SOCKET is neither a path/);
    assert.equal(notifier.ready(), false);
  }
});

Deno.test("Notifier does not wait for a service manager that does not read", () => {
  const path = `@flanneld-test-${crypto.randomUUID()}`;
  using _receiver = openReceiver(path);
  using notifier = openNotifier(path);
  let sent = 0;
  while (sent < 100_000 && notifier.status("x")) sent++;
  assert.ok(sent > 0 && sent < 100_000, `${sent} messages fitted`);
});

Deno.test("Notifier is silent once disposed", () => {
  const path = `@flanneld-test-${crypto.randomUUID()}`;
  using receiver = openReceiver(path);
  const notifier = openNotifier(path);
  notifier[Symbol.dispose]();
  notifier[Symbol.dispose]();
  assert.equal(notifier.ready(), false);
  assert.equal(receiver.receive(), undefined);
});

Deno.test("feedWatchdog() speaks three times within the limit, if this process is meant", async () => {
  const path = `@flanneld-test-${crypto.randomUUID()}`;
  using receiver = openReceiver(path);
  using notifier = openNotifier(path);
  const count = () => {
    let messages = 0;
    for (let text; (text = receiver.receive()) !== undefined; messages++) {
      assert.equal(text, "WATCHDOG=1");
    }
    return messages;
  };
  const limit = { WATCHDOG_USEC: "150000" };
  for (const environment of [limit, { ...limit, WATCHDOG_PID: "7" }]) {
    using _ = feedWatchdog(notifier, environment, 7);
    await new Promise((resolve) => setTimeout(resolve, 140));
    assert.ok(count() >= 2);
  }
  count();
  const others = [
    ...[{}, { WATCHDOG_USEC: "" }, { WATCHDOG_USEC: "0" }, { WATCHDOG_USEC: "1e3" }],
    ...[{ WATCHDOG_USEC: "-1" }, { ...limit, WATCHDOG_PID: "8" }],
  ];
  for (const environment of others) {
    using _ = feedWatchdog(notifier, environment, 7);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(count(), 0, JSON.stringify(environment));
  }
  using _ = feedWatchdog(notifier, { WATCHDOG_USEC: "999999999999999" }, 7);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(count(), 1);
});
