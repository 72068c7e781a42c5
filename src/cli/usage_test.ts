import assert from "node:assert/strict";
import { FLAGS, GROUPS } from "./flags.ts";
import { usage } from "./usage.ts";

const HELP = usage();

Deno.test("usage() names every flag and group, within 100 columns", () => {
  for (const { name } of FLAGS) assert.match(HELP, new RegExp(`(^|[ (])--?${name}\\b`, "m"), name);
  for (const group of GROUPS) assert.ok(HELP.includes(`\n${group}:\n`), group);
  for (const line of HELP.split("\n")) {
    assert.ok(line.length <= 100, line);
    assert.equal(line, line.trimEnd());
  }
});

Deno.test("usage() reads like this", () => {
  const part = HELP.slice(HELP.indexOf("Lease:"), HELP.indexOf("External interface:"));
  assert.equal(
    part,
    `Lease:
  --subnet-file=FILE              environment file written for the container runtime, and read at
                                  start (default /run/flannel/subnet.env)
  --cni-conf-file=FILE            CNI config to be written last, with bridge and portmap for the
                                  subnet; by default none
  --subnet-lease-renew-margin=MINUTES
                                  renew the lease this long before it expires, 1 to 1439
                                  (default 60)
  --on-lease-loss=keep|reassign   when another host took our subnet: keep it and be not ready, or
                                  lease another one (default keep)

`,
  );
});
