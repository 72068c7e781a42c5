import assert from "node:assert/strict";
import { announceReadiness } from "./announcer.ts";
import type { Finding } from "./model.ts";
import { Readiness } from "./readiness.ts";
import { recordLog } from "../../tests/support/log.ts";

const found = (message: string): Finding => ({ code: "starting", object: "x", message });

Deno.test("announceReadiness() says READY=1 once, each status once, and every change of readiness", () => {
  const { lines: told, log } = recordLog();
  using readiness = new Readiness();
  const lease = readiness.condition("lease");
  const cloud = readiness.condition("cloud");
  using _ = announceReadiness(readiness, {
    log,
    notifier: {
      problem: undefined,
      ready: () => told.push("READY=1") > 0,
      status: (text) => told.push(`STATUS=${text}`) > 0,
      stopping: () => true,
      alive: () => true,
      [Symbol.dispose]() {},
    },
    onFirstReady: () => void told.push("settling"),
  });
  lease.unmet(found("waiting"));
  cloud.unmet({ ...found("throttled"), remedy: "raise the quota" });
  lease.met();
  cloud.met();
  lease.doubtful(found("repaired"), 60_000);
  lease.met();
  lease.unmet(found("lost"), found("and more"));
  lease.met([found("1 of 3 peers is left out")]);
  assert.deepEqual(told, [
    "STATUS=lease: waiting",
    "STATUS=cloud: throttled; raise the quota",
    "INFO  Ready: the subnet is usable",
    "READY=1",
    "settling",
    "STATUS=Ready",
    "WARN  Not ready: lease: lost",
    "STATUS=lease: lost",
    "INFO  Ready: the subnet is usable",
    "STATUS=Ready; 1 of 3 peers is left out",
  ]);
});
