import assert from "node:assert/strict";
import { MemoryRegistry, MemoryStore } from "../../../tests/fakes/memory_registry.ts";
import { encodeLeaseValue } from "../../lease/codec.ts";
import { Address } from "../../net/mod.ts";
import { releaseLeases } from "./release.ts";
import { SILENT } from "../../../tests/support/log.ts";

const { signal } = new AbortController();
const log = SILENT;
const life = { ttlSeconds: 3_600 };

function value(ip?: string, ipv6?: string): string {
  return encodeLeaseValue({
    ...(ip ? { publicIp: Address.parse(ip) } : {}),
    ...(ipv6 ? { publicIpv6: Address.parse(ipv6) } : {}),
    backendType: "vxlan",
  });
}

Deno.test("releaseLeases() gives back what the host's addresses own, and nothing else", async () => {
  const store = new MemoryStore();
  store.put("10.3.1.0-24", value("192.0.2.1"), life);
  store.put("10.3.2.0-24", value("192.0.2.9", "2001:db8::1"), life); // by IPv4 it is another host's
  store.put("10.3.3.0-24", value("192.0.2.1")); // a reservation
  store.put("0.0.0.0-0&fd00::-64", value(undefined, "2001:db8::1"), life);
  store.put("10.3.4.0-24", "junk", life);
  store.put("junk", value("192.0.2.1"), life);
  const addresses = ["192.0.2.1", "2001:db8::1"].map((text) => Address.parse(text));
  const result = await releaseLeases(new MemoryRegistry(store), { addresses, log }, { signal });
  assert.deepEqual(result.released.map(({ ipv4, ipv6 }) => String(ipv4 ?? ipv6)).sort(), [
    "10.3.1.0/24",
    "fd00::/64",
  ]);
  assert.deepEqual(result.kept.map(({ ipv4 }) => String(ipv4)), ["10.3.3.0/24"]);
  assert.deepEqual(store.entries().map(({ key }) => key), [
    "10.3.2.0-24",
    "10.3.3.0-24",
    "10.3.4.0-24",
    "junk",
  ]);
});

Deno.test("releaseLeases() says so where a lease is written at the same time", async () => {
  const store = new MemoryStore();
  store.put("10.3.1.0-24", value("192.0.2.1"), life);
  const registry = new MemoryRegistry(store);
  const { remove } = registry;
  registry.remove = (...args) => {
    store.put("10.3.1.0-24", value("192.0.2.1"), life);
    return remove.apply(registry, args);
  };
  const releasing = releaseLeases(registry, { addresses: [Address.parse("192.0.2.1")], log }, {
    signal,
  });
  await assert.rejects(releasing, /10\.3\.1\.0\/24 was written in this moment; is a flanneld/);
});
