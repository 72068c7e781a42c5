import assert from "node:assert/strict";
import { formatTable } from "./text_table.ts";

Deno.test("formatTable() aligns columns by their longest text, styled or not", () => {
  const rows = [["a", { text: "1 ms", style: "good" as const }, "x"], ["longer", "LOST", ""]];
  assert.equal(
    formatTable(["host", "to", "note"], rows, { colour: false }),
    [
      "  host    to    note",
      "  ──────  ────  ────",
      "  a       1 ms  x",
      "  longer  LOST",
    ].join("\n"),
  );
  const coloured = formatTable(["host", "to", "note"], rows, { colour: true });
  assert.equal(
    // deno-lint-ignore no-control-regex
    coloured.replaceAll(/\x1b\[[0-9;]*m/g, ""),
    formatTable(["host", "to", "note"], rows, {
      colour: false,
    }),
  );
  assert.ok(coloured.includes("\x1b[32m1 ms\x1b[0m  x"));
});
