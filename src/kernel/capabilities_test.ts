import assert from "node:assert/strict";
import { parseCapabilities } from "./capabilities.ts";

Deno.test("parseCapabilities() reads the effective set alone", () => {
  const status = (mask: string) =>
    `Name:\tflanneld\nCapPrm:\t000001ffffffffff\nCapEff:\t${mask}\nCapBnd:\t000001ffffffffff\n`;
  assert.deepEqual([...parseCapabilities(status("000001ffffffffff"))], [
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
  ]);
  assert.deepEqual([...parseCapabilities(status("0000000000001000"))], ["CAP_NET_ADMIN"]);
  assert.deepEqual([...parseCapabilities(status("0000000000002000"))], ["CAP_NET_RAW"]);
  assert.deepEqual([...parseCapabilities(status("0000000000000000"))], []);
  assert.throws(() => parseCapabilities("Name:\tx\n"));
});
