import assert from "node:assert/strict";
import { UsageError } from "../errors.ts";
import { FLAGS, GROUPS } from "./flags.ts";
import { helpText, usageErrorText, versionText } from "./usage.ts";

const HELP = helpText("1.2.3");

Deno.test("helpText() names every flag and group, within 100 columns", () => {
  for (const { name } of FLAGS) assert.match(HELP, new RegExp(`(^|[ (])--?${name}\\b`, "m"), name);
  for (const group of GROUPS) assert.ok(HELP.includes(`\n${group}:\n`), group);
  for (const line of HELP.split("\n")) {
    assert.ok(line.length <= 100, line);
    assert.equal(line, line.trimEnd());
  }
});

Deno.test("helpText() reads like this", () => {
  const part = HELP.slice(HELP.indexOf("Lease:"), HELP.indexOf("External interface:"));
  assert.equal(
    part,
    `Lease:
  --subnet-file=FILE              environment file written for the container runtime, and read at
                                  start (default /run/flannel/subnet.env)
  --subnet-lease-renew-margin=MINUTES
                                  renew the lease this long before it expires, 1 to 1439
                                  (default 60)
  --on-lease-loss=keep|reassign   when another host took our subnet: keep it and be not ready, or
                                  lease another one (default keep)

`,
  );
});

Deno.test("versionText() names the program's and Deno's version", () => {
  assert.equal(versionText("1.2.3", "2.9.6"), "flanneld 1.2.3 (deno 2.9.6)");
});

Deno.test("usageErrorText() puts the program's name before each fault", () => {
  assert.equal(usageErrorText(new UsageError("a\nb")), "flanneld: a\nflanneld: b");
});
