import assert from "node:assert/strict";
import { paintHelp, paintLog, styleOf } from "./style.ts";
import { usage } from "./usage.ts";

const TERMINAL = { isTerminal: () => true };
const COLOURED = styleOf(TERMINAL, { TERM: "xterm" });

/** `text` without colours. */
// deno-lint-ignore no-control-regex -- they begin with one
const bare = (text: string) => text.replaceAll(/\u001b\[\d+m/g, "");

Deno.test("styleOf() colours on a terminal only, and where it is not asked not to", () => {
  const isColoured = (stream: { isTerminal(): boolean }, environment: Record<string, string>) =>
    styleOf(stream, environment).error("x") !== "x";
  assert.ok(isColoured(TERMINAL, { TERM: "xterm", NO_COLOR: "" }));
  assert.ok(!isColoured(TERMINAL, { TERM: "xterm", NO_COLOR: "1" }));
  assert.ok(!isColoured(TERMINAL, { TERM: "dumb" }));
  assert.ok(!isColoured(TERMINAL, {}));
  assert.ok(!isColoured({ isTerminal: () => false }, { TERM: "xterm" }));
});

Deno.test("paintHelp() marks titles, commands and flags, and changes no text", () => {
  const painted = paintHelp(usage(), COLOURED);
  assert.equal(bare(painted), usage());
  for (const marked of ["Commands:", "cleanup", "--etcd-prefix", "-v", "-k"]) {
    assert.ok(painted.includes(COLOURED.heading(marked)), marked);
  }
});

Deno.test("paintLog() marks the level of warnings and errors alone", () => {
  const line = "2026-01-02T03:04:05.678Z WARN  store: the level is ERROR here";
  assert.equal(paintLog(line, COLOURED), line.replace("WARN", COLOURED.warning("WARN")));
  const info = "2026-01-02T03:04:05.678Z INFO  Ready";
  assert.equal(paintLog(info, COLOURED), info);
});
