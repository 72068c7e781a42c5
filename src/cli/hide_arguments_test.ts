import assert from "node:assert/strict";

const MODULE = new URL("./hide_arguments.ts", import.meta.url);

/** Runs a program with `args` and answers what others see of it, before and after hiding. */
async function runAndLook(args: readonly string[]): Promise<[before: string[], after: string[]]> {
  const directory = await Deno.makeTempDir();
  try {
    const main = `${directory}/main.ts`;
    await Deno.writeTextFile(
      main,
      `import { hideArguments } from ${JSON.stringify(MODULE.href)};
      const look = () => Deno.readTextFileSync("/proc/self/cmdline").split("\\0");
      const before = look();
      const problem = hideArguments(["etcd-password", "token"]);
      if (problem !== undefined) throw new Error(problem);
      console.log(JSON.stringify([before, look(), Deno.args]));`,
    );
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-config", main, ...args],
    }).output();
    const text = new TextDecoder().decode(stdout);
    assert.notEqual(text, "", new TextDecoder().decode(stderr));
    const [before, after, own] = JSON.parse(text);
    assert.deepEqual(own, args, "the program itself still has its arguments");
    return [before, after].map((each: string[]) => each.slice(each.indexOf(main) + 1, -1)) as [
      string[],
      string[],
    ];
  } finally {
    await Deno.remove(directory, { recursive: true });
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
    "--etcd-password",
  ];
  const [before, after] = await runAndLook(args);
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
    "--etcd-password",
  ]);
});
