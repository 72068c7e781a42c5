import assert from "node:assert/strict";
import { Address } from "../net/mod.ts";
import { alloc } from "./alloc.ts";

Deno.test("alloc.parseConfig() has no keys and warns of any", () => {
  assert.deepEqual(alloc.parseConfig({ type: "alloc" }), { config: {}, warnings: [] });
  assert.equal(alloc.parseConfig({ Type: "alloc", Port: 8472 }).warnings.length, 1);
});

Deno.test("alloc publishes the public addresses alone and programs nothing", () => {
  const host = { link: "eth0", mtuBytes: 1500, publicIp: Address.parse("192.0.2.7") };
  assert.deepEqual(alloc.announce({}, host, undefined), {
    publicIp: host.publicIp,
    backendType: "",
  });
  assert.equal(alloc.overheadBytes({}), 0);
});
