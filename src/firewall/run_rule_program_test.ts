import assert from "node:assert/strict";
import { OperatorError } from "../errors.ts";
import { ProgramNotFoundError } from "../util/process.ts";
import { isAtLeast, parseVersion, runRuleProgram } from "./run_rule_program.ts";

/** Runs `test` with a program that does what the shell `script` says, and counts its runs. */
async function withProgram(
  script: string,
  test: (run: () => Promise<string>, count: () => number) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "rule-program-" });
  try {
    const name = `${directory}/program`;
    await Deno.writeTextFile(name, `#!/bin/sh\necho run >> ${directory}/runs\n${script}\n`);
    await Deno.chmod(name, 0o755);
    const { signal } = new AbortController();
    await test(
      () => runRuleProgram({ name, modules: "ip_tables" }, ["-x"], { signal }),
      () => Deno.readTextFileSync(`${directory}/runs`).length / 4,
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("runRuleProgram() repeats what met a lock", () =>
  withProgram(
    `[ $(wc -l < "$(dirname $0)/runs") -ge 3 ] && echo done && exit 0; echo busy >&2; exit 4`,
    async (run, count) => {
      assert.equal(await run(), "done\n");
      assert.equal(count(), 3);
    },
  ));

Deno.test("runRuleProgram() repeats on EAGAIN, and not for ever", () =>
  withProgram(`echo "Resource temporarily unavailable" >&2; exit 1`, async (run, count) => {
    await assert.rejects(run(), /exit code 1: Resource temporarily unavailable/);
    assert.equal(count(), 6);
  }));

const failures: [stderr: string, code: number, error: RegExp, operator: boolean][] = [
  ["Permission denied (you must be root)", 4, /CAP_NET_ADMIN/, true],
  ["Error: Operation not permitted", 1, /CAP_NET_ADMIN/, true],
  [
    "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
    3,
    /load the modules ip_tables/,
    true,
  ],
  ["line 5: RULE_APPEND failed (Invalid argument): rule in chain X", 4, /exit code 4/, false],
  ["iptables-restore: line 3 failed", 1, /exit code 1: iptables-restore: line 3 failed/, false],
];

for (const [stderr, code, error, operator] of failures) {
  Deno.test(`runRuleProgram() explains "${stderr}" without another try`, () =>
    withProgram(`cat >&2 <<'X'\n${stderr}\nX\nexit ${code}`, async (run, count) => {
      await assert.rejects(run(), (thrown: Error) => {
        assert.match(thrown.message, error);
        assert.equal(thrown instanceof OperatorError, operator);
        return true;
      });
      assert.equal(count(), 1);
    }));
}

Deno.test("runRuleProgram() ends at once on abort", async () => {
  await withProgram("exit 4", async () => {
    const controller = new AbortController();
    const running = runRuleProgram({ name: "sleep", modules: "" }, ["60"], controller);
    controller.abort(new Error("enough"));
    await assert.rejects(running, /enough/);
  });
});

Deno.test("runRuleProgram() tells a missing program apart", async () => {
  const { signal } = new AbortController();
  await assert.rejects(
    runRuleProgram({ name: "no-such-program-x", modules: "" }, [], { signal }),
    ProgramNotFoundError,
  );
});

Deno.test("isAtLeast() compares versions by part", () => {
  assert.deepEqual(parseVersion("iptables v1.8.9 (nf_tables)\n"), [1, 8, 9]);
  assert.deepEqual(parseVersion("nftables v1.0.6 (Lester Gooch #5)"), [1, 0, 6]);
  assert.equal(parseVersion("nothing"), undefined);
  assert.ok(isAtLeast([1, 6, 2], [1, 6, 2]));
  assert.ok(isAtLeast([1, 10], [1, 6, 2]));
  assert.ok(isAtLeast([2], [1, 6, 2]));
  assert.ok(!isAtLeast([1, 6], [1, 6, 2]));
  assert.ok(!isAtLeast([1, 4, 21], [1, 6, 2]));
});

Deno.test("runRuleProgram() hands on no variable but those that rule programs read", async () => {
  const canary = `canary-${crypto.randomUUID()}`;
  const secrets = ["ACCESS_KEY_SECRET", "FLANNELD_ETCD_PASSWORD", "ALIBABA_CLOUD_SECURITY_TOKEN"];
  const kept = { XTABLES_LOCKFILE: "/run/other.lock", LC_MESSAGES: "C" };
  for (const name of secrets) Deno.env.set(name, canary);
  for (const [name, value] of Object.entries(kept)) Deno.env.set(name, value);
  try {
    await withProgram("cat /proc/self/environ", async (run) => {
      const text = await run();
      assert.ok(!text.includes(canary), text);
      const variables = new Map(
        text.split("\0").map((each) => each.split("=", 2) as [string, string]),
      );
      for (const [name, value] of Object.entries(kept)) assert.equal(variables.get(name), value);
      assert.equal(variables.get("PATH"), Deno.env.get("PATH"));
      for (const name of ["HOME", "NOTIFY_SOCKET", "LD_PRELOAD", "DENO_DIR"]) {
        assert.ok(!variables.has(name), name);
      }
    });
  } finally {
    for (const name of [...secrets, ...Object.keys(kept)]) Deno.env.delete(name);
  }
});
