import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { listPids, startTicks } from "../support/process_table.ts";
import { removeLeftovers, setsOf } from "../support/namespace.ts";
import { run } from "../support/run.ts";
import { openLab } from "./lab.ts";
import { labTest } from "./lab_test_case.ts";

labTest("a lab that is disposed leaves no namespace, process or file", async ({ signal }) => {
  let name: string;
  let directory: string;
  let etcdPids: number[];
  {
    await using lab = await openLab({ signal });
    ({ name, directory } = lab);
    etcdPids = await pidsIn(`${name}-etcd1`, signal);
    assert.equal(etcdPids.length, 1);
    assert.ok((await namespaces(signal)).some((each) => each.startsWith(name)));
  }
  await assertGone(name, directory, signal);
  assert.deepEqual(etcdPids.map(startTicks), [undefined]);
});

labTest("a lab that cannot be completed leaves nothing behind", async ({ signal }) => {
  await assert.rejects(
    openLab({ signal, etcd: { flags: ["--no-such-flag"] } }),
    /etcd1 has ended:/,
  );
  assert.deepEqual(setsOf(Deno.pid), []);
});

labTest("an abort while a lab is made leaves nothing behind", async ({ signal }) => {
  for (const afterMs of [1, 40, 150, 400]) {
    const reason = new Error("changed my mind");
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(reason), afterMs);
    try {
      const both = AbortSignal.any([signal, abort.signal]);
      // Late on a fast machine: then the lab is complete, and is disposed as any other.
      await using _lab = await openLab({ signal: both });
    } catch (error) {
      assert.equal(error, reason);
    } finally {
      clearTimeout(timer);
    }
    assert.deepEqual(setsOf(Deno.pid), []);
  }
});

labTest(
  "what a killed run left is removed at the next start, and nothing else",
  async ({ signal }) => {
    const ended = new Deno.Command("true").spawn();
    await ended.status;
    const dead = `flab-${ended.pid}-zz-1`;
    const living = `flab-${Deno.pid}-${startTicks("self")!.toString(36)}-999`;
    const reused = `flab-${Deno.pid}-0-1`; // the pid of a living process that began at another time
    const foreign = `foreign-${Deno.pid}`;
    const names = [`${dead}-host1`, `${living}-host1`, `${reused}-host1`, foreign];
    await run("ip", ["-batch", "-"], {
      signal,
      stdin: names.map((name) => `netns add ${name}\n`).join(""),
    });
    await Deno.mkdir(`/tmp/${dead}/deep`, { recursive: true });
    const sleeper = new Deno.Command("ip", {
      args: ["netns", "exec", `${dead}-host1`, "sleep", "1000"],
    }).spawn();
    try {
      await eventually(async () => (await pidsIn(`${dead}-host1`, signal)).length > 0, {
        signal,
        title: "the process inside",
      });
      const removed = await removeLeftovers({ signal });
      assert.deepEqual(
        removed.filter((name) => name === dead || name === reused).sort(),
        [
          dead,
          reused,
        ].sort(),
      );
      assert.equal((await sleeper.status).signal, "SIGKILL");
      const left = await namespaces(signal);
      assert.deepEqual(names.map((name) => left.includes(name)), [false, true, false, true]);
      await assert.rejects(Deno.stat(`/tmp/${dead}`), Deno.errors.NotFound);
    } finally {
      const left = (await namespaces(new AbortController().signal)).filter((name) =>
        names.includes(name)
      );
      await run("ip", ["-batch", "-"], {
        signal: new AbortController().signal,
        stdin: left.map((name) => `netns del ${name}\n`).join(""),
      });
    }
  },
);

labTest("a lab whose process is killed is removed without a next start", async ({ signal }) => {
  const holder = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--cached-only", new URL("./hold_lab.ts", import.meta.url).pathname],
    stdout: "piped",
  }).spawn();
  const { value } = await holder.stdout.pipeThrough(new TextDecoderStream()).getReader().read();
  const [name, directory] = value!.trim().split(" ") as [string, string];
  assert.ok((await namespaces(signal)).includes(`${name}-host1`));

  assert.deepEqual(
    (await removeLeftovers({ signal })).filter((each) => each === name),
    [],
    "a lab of another living process stays",
  );
  assert.ok((await namespaces(signal)).includes(`${name}-host1`));

  holder.kill("SIGKILL");
  await holder.status;
  await eventually(async () => {
    await assertGone(name, directory, signal);
    return true;
  }, { signal, title: "the companion to tidy up" });
});

async function namespaces(signal: AbortSignal): Promise<string[]> {
  const text = await run("ip", ["netns", "list"], { signal });
  return text.split("\n").map((line) => line.split(" ")[0]!).filter((name) => name !== "");
}

async function pidsIn(namespace: string, signal: AbortSignal): Promise<number[]> {
  const text = await run("ip", ["netns", "pids", namespace], { signal });
  return text.split("\n").filter((line) => line !== "").map(Number);
}

async function assertGone(name: string, directory: string, signal: AbortSignal): Promise<void> {
  assert.deepEqual((await namespaces(signal)).filter((each) => each.startsWith(name)), []);
  await assert.rejects(Deno.stat(directory), Deno.errors.NotFound);
  assert.deepEqual(listPids().filter((pid) => commandLine(pid).includes(directory)), []);
}

function commandLine(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  } catch {
    return "";
  }
}
