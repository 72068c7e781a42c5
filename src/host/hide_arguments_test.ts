import assert from "node:assert/strict";

const MODULE = new URL("./hide_arguments.ts", import.meta.url);

/** A program that hides its arguments after a line on stdin, and ends after another one. */
const PROGRAM = `
  import { hideArguments } from ${JSON.stringify(MODULE.href)};
  const line = () => Deno.stdin.readSync(new Uint8Array(1));
  console.log("started");
  line();
  console.log(JSON.stringify([hideArguments(["etcd-password", "token"]) ?? null, Deno.args]));
  line();`;

/** Runs the program with `args` and answers what others see of it, before and after hiding. */
async function runAndLook(permissions: readonly string[], args: readonly string[]) {
  const main = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(main, PROGRAM);
    await using child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-config", "--no-prompt", ...permissions, main, ...args],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const look = async () => {
      const seen = (await Deno.readTextFile(`/proc/${child.pid}/cmdline`)).split("\0");
      return seen.slice(seen.indexOf(main) + 1, -1);
    };
    const output = child.stdout.pipeThrough(new TextDecoderStream()).values();
    const input = child.stdin.getWriter();
    const goOn = () => input.write(new TextEncoder().encode("\n"));
    assert.equal((await output.next()).value, "started\n");
    const before = await look();
    await goOn();
    const [problem, own] = JSON.parse((await output.next()).value!);
    const after = await look();
    await goOn();
    await input.close();
    await output.return?.();
    assert.deepEqual(own, args, "the program itself still has its arguments");
    return { before, after, problem };
  } finally {
    await Deno.remove(main);
  }
}

Deno.test("hideArguments() hides values from ps and leaves the other arguments", async () => {
  const args = [
    "--ip-masq",
    "--etcd-password=canary-é-1",
    "-etcd-password",
    "canary 2",
    "--etcd-passwords=kept",
    "--etcd-password=",
    "-token=canary=3",
    "kept",
    "--é=http://me:canary@a:1,https://me:cänary@b:1,http://c:1",
    "http://a:1",
    "--etcd-password",
  ];
  const { before, after, problem } = await runAndLook(["--allow-ffi"], args);
  assert.equal(problem, null);
  assert.deepEqual(before, args);
  assert.deepEqual(after, [
    "--ip-masq",
    "--etcd-password=***********",
    "-etcd-password",
    "********",
    "--etcd-passwords=kept",
    "--etcd-password=",
    "-token=********",
    "kept",
    `--é=http://${"*".repeat(32)}@b:1,http://c:1`,
    "http://a:1",
    "--etcd-password",
  ]);
});

Deno.test("hideArguments() says why it cannot", async () => {
  const { after, problem } = await runAndLook([], ["--etcd-password=canary"]);
  assert.match(problem, /^Cannot hide secret arguments: Requires ffi access/);
  assert.deepEqual(after, ["--etcd-password=canary"]);
});
