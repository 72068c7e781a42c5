import assert from "node:assert/strict";
import fc from "fast-check";
import { Address, Prefix } from "../net/mod.ts";
import { encodePathRecord, parsePathRecord, type PathRecord, sameSettings } from "./path_record.ts";

const port = fc.integer({ min: 1, max: 65_535 });
const address = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
).map((bytes) => Address.fromBytes(bytes));
const destination = fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 16, max: 30 }))
  .map(([third, length]) => Prefix.parse(`10.24.${third & (length < 24 ? 0 : 255)}.0/${length}`));
const record: fc.Arbitrary<PathRecord> = fc.record({
  settings: fc.record({
    allowAnySource: fc.boolean(),
    natTraversal: fc.boolean(),
    families: fc.subarray<4 | 6>([4, 6]),
  }),
  mtuBytes: fc.integer({ min: 68, max: 65_535 }),
  ipv4: address,
  ipv6: address,
  sockets: fc.array(fc.record({ address, port })),
  forwarding: fc.array(fc.record({ destination, address, port })),
}, { requiredKeys: ["settings", "mtuBytes", "sockets", "forwarding"] });

Deno.test("encodePathRecord() writes what parsePathRecord() reads", () => {
  fc.assert(fc.property(record, (record) => {
    const text = encodePathRecord(record);
    const parsed = parsePathRecord(text);
    assert.ok(parsed);
    assert.equal(encodePathRecord(parsed), text);
    assert.ok(sameSettings(parsed.settings, record.settings));
  }));
});

Deno.test("parsePathRecord() takes no junk", () => {
  const good = {
    version: 1,
    settings: { allowAnySource: false, natTraversal: false, families: [4] },
    mtuBytes: 1472,
    sockets: [{ address: "192.0.2.1", port: 8285 }],
    forwarding: [["10.24.3.0/24", "192.0.2.2", 8285]],
  };
  assert.ok(parsePathRecord(JSON.stringify(good)));
  for (
    const change of [
      { version: 2 },
      { mtuBytes: 1e300 },
      { mtuBytes: 1 },
      { settings: {} },
      { settings: { ...good.settings, families: [5] } },
      { ipv4: "10.24.1" },
      { sockets: [{ address: "192.0.2.1", port: 0 }] },
      { forwarding: [["10.24.3.0/33", "192.0.2.2", 8285]] },
      { forwarding: [["10.24.3.0/24", "host", 8285]] },
      { forwarding: [["10.24.3.0/24"]] },
      { forwarding: {} },
    ]
  ) {
    const text = JSON.stringify({ ...good, ...change });
    assert.equal(parsePathRecord(text), undefined, text);
  }
  for (const text of ["", "{", "null", "[]", '"x"', "\0"]) {
    assert.equal(parsePathRecord(text), undefined, text);
  }
});

Deno.test("sameSettings() sees what a path cannot change", () => {
  const settings = { allowAnySource: false, natTraversal: false, families: [4, 6] as const };
  assert.ok(sameSettings(settings, { ...settings, families: [6, 4] }));
  assert.ok(!sameSettings(settings, { ...settings, families: [4] }));
  assert.ok(!sameSettings(settings, { ...settings, allowAnySource: true }));
  assert.ok(!sameSettings(settings, { ...settings, natTraversal: true }));
});
