import assert from "node:assert/strict";
import { errnoName, errnoText, SystemCallError } from "./errors.ts";

Deno.test("errnoName() and errnoText() speak as the kernel does", () => {
  assert.deepEqual([errnoName(101), errnoText(101)], ["ENETUNREACH", "network is unreachable"]);
  assert.deepEqual([errnoName(95), errnoText(95)], ["EOPNOTSUPP", "operation not supported"]);
  assert.deepEqual([errnoName(4242), errnoText(4242)], ["errno 4242", "errno 4242"]);
});

Deno.test("SystemCallError names call and reason", () => {
  const error = new SystemCallError("setns", 1);
  assert.equal(error.message, "System call setns failed: operation not permitted");
  assert.equal(error.code, "EPERM");
});
