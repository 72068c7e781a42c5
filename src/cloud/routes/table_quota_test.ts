import assert from "node:assert/strict";
import { fillLevel } from "./table_quota.ts";

Deno.test("fillLevel() goes by the limit, and by the default quota where none is known", () => {
  const cases: readonly (readonly [number, number | undefined, string])[] = [
    [159, undefined, "roomy"],
    [160, undefined, "nearly full"],
    [200, undefined, "nearly full"],
    [201, undefined, "roomy"],
    [37, 48, "roomy"],
    [39, 48, "nearly full"],
    [48, 48, "full"],
    [60, 48, "full"],
    [799, 1000, "roomy"],
    [800, 1000, "nearly full"],
  ];
  for (const [used, limit, level] of cases) {
    assert.equal(fillLevel(used, limit, 200), level, `${used} of ${limit}`);
  }
});
