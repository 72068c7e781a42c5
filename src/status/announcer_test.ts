import assert from "node:assert/strict";
import { createLogger } from "../log.ts";
import { Announcer } from "./announcer.ts";
import { Readiness } from "./readiness.ts";

Deno.test("Announcer says READY=1 once, each status once, and every change of readiness", () => {
  const told: string[] = [];
  const log = createLogger({
    format: "human",
    verbosity: 0,
    write: (line) => void told.push(line.replace(/^\S+ +/, "")),
  });
  const announcer = new Announcer({
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
  const readiness = new Readiness(["lease"], (it) => announcer.tell(it));
  readiness.set("lease", "waiting");
  readiness.set("cloud", "throttled");
  readiness.set("lease", undefined);
  readiness.set("cloud", undefined);
  readiness.set("lease", "lost");
  readiness.set("lease", undefined);
  assert.deepEqual(told, [
    "STATUS=lease: waiting",
    "STATUS=cloud: throttled",
    "INFO  Ready: the subnet is usable",
    "READY=1",
    "settling",
    "STATUS=Ready",
    "WARN  Not ready: lease: lost",
    "STATUS=lease: lost",
    "INFO  Ready: the subnet is usable",
    "STATUS=Ready",
  ]);
});
