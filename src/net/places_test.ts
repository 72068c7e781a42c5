import assert from "node:assert/strict";
import fc from "fast-check";
import { Address, type Place, Places, Prefix } from "./mod.ts";

/** Prefixes of 10.0.0.0/20 or fd00::/116, many of which overlap. */
const prefix = fc.tuple(fc.boolean(), fc.nat(4_095), fc.integer({ min: 0, max: 12 })).map(
  ([ipv4, offset, free]) =>
    new Prefix(
      Address.parse(ipv4 ? "10.0.0.0" : "fd00::").add(BigInt(offset)),
      (ipv4 ? 32 : 128) - free,
    ),
);
const place = fc.record({ prefix, yields: fc.boolean() }).map(({ prefix, yields }): Place => ({
  prefix,
  what: `${prefix}`,
  ...(yields ? { yields } : {}),
}));

Deno.test("Places.find() agrees with looking at each place", () => {
  fc.assert(fc.property(fc.array(place, { maxLength: 12 }), prefix, (list, subnet) => {
    const takes = ({ prefix, yields }: Place) =>
      subnet.contains(prefix) || (!yields && prefix.contains(subnet));
    const found = new Places(list).find(subnet);
    if (found === undefined) assert.ok(!list.some(takes), `${subnet} of ${list}`);
    else assert.ok(takes(found) && list.includes(found), `${subnet} is not in the way of ${found}`);
  }));
});

Deno.test("Places.within() and blocking() keep what can be found", () => {
  const network = Prefix.parse("10.0.0.0/22");
  const inside = prefix.filter((each) => network.contains(each));
  fc.assert(fc.property(fc.array(place, { maxLength: 12 }), inside, (list, subnet) => {
    const places = new Places(list);
    const found = places.find(subnet) !== undefined;
    assert.equal(places.within(network).find(subnet) !== undefined, found);
    const blocked = places.blocking(subnet.length).some((each) => each.prefix.overlaps(subnet));
    assert.equal(blocked, found);
  }));
});
