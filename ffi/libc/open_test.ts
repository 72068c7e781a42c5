import assert from "node:assert/strict";
import { unchangedMappings } from "./open.ts";

Deno.test("unchangedMappings() finds what can be read from the program's file again", () => {
  const mapping = (range: string, rights: string, file: string, anonymousKb = 0, swapKb = 0) =>
    `${range} ${rights} 00000000 fe:00 247530    ${file}\n` +
    `Size:                 16 kB\nAnonymous:            ${anonymousKb} kB\n` +
    `AnonHugePages:         0 kB\nSwap:                 ${swapKb} kB\nSwapPss:  0 kB\n`;
  const smaps = mapping("1000-3000", "r--p", "/opt/a b") + // constants
    mapping("3000-8000", "r-xp", "/opt/a b") + // machine code
    mapping("8000-9000", "r--p", "/opt/a b", 4) + // relocated
    mapping("9000-a000", "r-xp", "/opt/a b", 0, 4) +
    mapping("a000-b000", "rw-p", "/opt/a b") +
    mapping("b000-c000", "r--p", "/opt/a") +
    mapping("c000-d000", "r-xp", "[vdso]");
  assert.deepEqual(unchangedMappings(smaps, "/opt/a b"), [
    { start: 0x1000n, sizeBytes: 0x2000 },
    { start: 0x3000n, sizeBytes: 0x5000 },
  ]);
  assert.deepEqual(unchangedMappings("", "/opt/a"), []);
});
