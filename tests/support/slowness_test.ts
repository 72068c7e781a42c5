import assert from "node:assert/strict";
import { patient, SLOWNESS_VARIABLE } from "./slowness.ts";

Deno.test("patient() lengthens time-outs as the environment says, and refuses nonsense", () => {
  const before = Deno.env.get(SLOWNESS_VARIABLE);
  try {
    for (const [value, milliseconds] of [["", 100], ["1", 100], ["12", 1200]] as const) {
      Deno.env.set(SLOWNESS_VARIABLE, value);
      assert.equal(patient(100), milliseconds);
    }
    for (const value of ["0", "-1", "ten", "NaN", "1e9"]) {
      Deno.env.set(SLOWNESS_VARIABLE, value);
      assert.throws(() => patient(100), {
        message: `Cannot use FLANNELD_TEST_SLOWNESS=${value}: it is not in 1..1000`,
      });
    }
  } finally {
    if (before === undefined) Deno.env.delete(SLOWNESS_VARIABLE);
    else Deno.env.set(SLOWNESS_VARIABLE, before);
  }
});
