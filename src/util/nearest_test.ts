import assert from "node:assert/strict";
import { nearest } from "./nearest.ts";

Deno.test("nearest() finds the candidate with the fewest edits", () => {
  const flags = ["etcd-endpoints", "etcd-prefix", "iface", "ip-masq", "v"];
  assert.equal(nearest("etcd-endpoint", flags), "etcd-endpoints");
  assert.equal(nearest("etcd-perfix", flags), "etcd-prefix");
  assert.equal(nearest("ipmasq", flags), "ip-masq");
  assert.equal(nearest("IFACE", flags), "iface");
  assert.equal(nearest("etcd-end", flags), "etcd-endpoints");
});

Deno.test("nearest() names nothing when nothing is near", () => {
  const flags = ["etcd-endpoints", "etcd-prefix", "iface", "v"];
  assert.equal(nearest("colour", flags), undefined);
  assert.equal(nearest("x", flags), undefined, "a one-letter name resembles every other one");
  assert.equal(nearest("", flags), undefined);
  assert.equal(nearest("etcd", flags), undefined, "two completions are no hint");
  assert.equal(nearest("i".repeat(100_000), flags), undefined);
});
