import assert from "node:assert/strict";
import type { Logger } from "../log.ts";
import { Notices } from "./notices.ts";

Deno.test("Notices are logged when they appear and when they are gone", () => {
  const lines: string[] = [];
  const write = (level: string) => (message: string) => void lines.push(`${level} ${message}`);
  const log: Logger = {
    trace: write("trace"),
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: () => log,
  };
  const notices = new Notices(log);
  notices.set("a", ["x", "y"]);
  notices.set("a", ["x", "y"]);
  notices.set("b", ["y"]);
  assert.deepEqual(notices.all, ["x", "y"]);
  notices.set("a", ["y"]);
  assert.deepEqual(lines, ["warn x", "warn y", "info No longer true: x"]);
  assert.deepEqual(notices.all, ["y"]);
});
