import assert from "node:assert/strict";
import { holderOfAbstractName, takeAbstractName } from "../../ffi/libc/unix_socket.ts";
import { Libc } from "../../ffi/libc/open.ts";
import { OperatorError } from "../errors.ts";
import { type InstanceLock, takeInstanceLock } from "./instance_lock.ts";
import { recordLog } from "../../tests/support/log.ts";

/** Takes the lock at once or not at all; `lines` is the log. */
function take(
  subnetFile: string,
  etcdPrefix: string,
  { action = "run" as "run" | "cleanup", args = [] as string[], patienceMs = 0 } = {},
): { lock: Promise<InstanceLock>; lines: string[] } {
  const { lines, log } = recordLog();
  const { signal } = new AbortController();
  const options = { subnetFile, etcdPrefix };
  return { lock: takeInstanceLock({ options, action, args, log, signal, patienceMs }), lines };
}

/** A directory and a prefix that nobody else has. */
async function fresh() {
  const directory = await Deno.makeTempDir();
  return {
    file: `${directory}/flannel/subnet.env`,
    prefix: `/${crypto.randomUUID()}`,
    directory,
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}

async function refused(lock: Promise<InstanceLock>): Promise<string> {
  let message = "";
  await assert.rejects(lock, (error: Error) => {
    assert.ok(error instanceof OperatorError);
    message = error.message;
    return true;
  });
  return message;
}

Deno.test("takeInstanceLock() lets in one per subnet file and per prefix, and names the other", async () => {
  await using place = await fresh();
  const { file, prefix, directory } = place;
  using _lock = await take(file, prefix, {
    args: ["--iface=eth0", "--etcd-password=canary", "--etcd-password", "canary"],
  }).lock;
  const both = await refused(take(file, prefix).lock);
  assert.ok(
    both.startsWith(
      `Cannot start: a flanneld with the same subnet file ${file} and etcd prefix ${prefix} is ` +
        "running on this host (",
    ),
    both,
  );
  assert.match(both, /flanneld --iface=eth0 --etcd-password=… --etcd-password …/);
  assert.doesNotMatch(both, /canary/);
  assert.match(
    await refused(take(file, `${prefix}/b`).lock),
    /the same subnet file \S+ is running/,
  );
  for (const same of [`${prefix}/`, `//${prefix}/.`, `${prefix}/x/..`]) {
    assert.match(await refused(take(`${directory}/b.env`, same).lock), /the same etcd prefix/);
  }
  const named = await refused(take(`${directory}/b.env`, prefix).lock);
  assert.match(named, /the same etcd prefix \S+ is running/);
  assert.match(named, new RegExp(`\\(pid ${Deno.pid}: `));
  assert.match(
    await refused(take(file, prefix, { action: "cleanup" }).lock),
    /^Cannot clean up: a flanneld with the same .*stop it first$/,
  );
  using _other = await take(`${directory}/b.env`, `${prefix}/b`).lock;
});

Deno.test("takeInstanceLock() is free again when its holder ends, and waits a moment for that", async () => {
  await using place = await fresh();
  const { file, prefix } = place;
  const first = await take(file, prefix).lock;
  const waiting = take(file, prefix, { patienceMs: 5_000 }).lock;
  setTimeout(() => first[Symbol.dispose](), 150);
  using second = await waiting;
  await second.removeFile();
  await assert.rejects(Deno.stat(file.replace("subnet.env", ".subnet.env.lock")));
});

Deno.test("takeInstanceLock() sees the same file behind a symbolic link, and is no one else's to take", async () => {
  await using place = await fresh();
  const { file, prefix, directory } = place;
  using _lock = await take(file, prefix).lock;
  await Deno.symlink(file, `${directory}/link.env`);
  assert.match(await refused(take(`${directory}/link.env`, `${prefix}/b`).lock), /subnet file/);
  const { mode } = await Deno.stat(`${directory}/flannel/.subnet.env.lock`);
  assert.equal(mode! & 0o777, 0o600);
});

Deno.test("takeInstanceLock() goes without a file where none can be written, and says so", async () => {
  await using place = await fresh();
  await Deno.writeTextFile(`${place.directory}/flannel`, "no directory");
  const { lock, lines } = take(place.file, place.prefix);
  using _lock = await lock;
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /A second flanneld with this subnet file would not be noticed: /);
  assert.match(await refused(take(place.file, place.prefix).lock), /etcd prefix/);
});

Deno.test("takeInstanceLock() writes to nothing that others put in the file's place", async () => {
  await using place = await fresh();
  await Deno.mkdir(`${place.directory}/flannel`);
  const precious = `${place.directory}/precious`;
  await Deno.writeTextFile(precious, "precious");
  await Deno.symlink(precious, `${place.directory}/flannel/.subnet.env.lock`);
  const { lock, lines } = take(place.file, place.prefix);
  using _lock = await lock;
  assert.match(lines.join(), /would not be noticed: \S+ is no file of flanneld's/);
  assert.equal(await Deno.readTextFile(precious), "precious");
});

Deno.test("takeInstanceLock() tells apart prefixes that are longer than a name may be", async () => {
  await using place = await fresh();
  const { file, directory } = place;
  const long = `${place.prefix}/${"x".repeat(500)}`;
  using _lock = await take(file, `${long}a`).lock;
  using _other = await take(`${directory}/b.env`, `${long}b`).lock;
  assert.match(await refused(take(`${directory}/c.env`, `${long}b`).lock), /etcd prefix/);
});

Deno.test("an abstract name tells its holder however many have asked before", async () => {
  await using place = await fresh();
  using libc = Libc.open();
  using held = takeAbstractName(libc, `flanneld:${place.prefix}`)!;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 100; i++) {
      assert.equal(holderOfAbstractName(libc, `flanneld:${place.prefix}`)?.pid, Deno.pid);
    }
    held.refresh();
  }
});
