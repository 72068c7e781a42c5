import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type BookedClaim,
  type BookNews,
  encodeBookPage,
  pageOf,
  parseBookPage,
  turnPage,
} from "./claim_book.ts";

const D = "10.24.7.0/24";
const PAGE = pageOf(D);
const A: BookedClaim = { instanceId: "i-a", publicIp: "192.168.0.1" };
const B: BookedClaim = { instanceId: "i-b", publicIp: "192.168.0.2" };

function news(change: Partial<BookNews> = {}): BookNews {
  return { claims: new Map(), mayLead: () => false, ...change };
}

function page(...claims: BookedClaim[]) {
  return new Map(claims.length === 0 ? [] : [[D, claims]]);
}

function claim(claimed: BookedClaim) {
  return new Map([[D, claimed]]);
}

Deno.test("turnPage() keeps a holder for as long as an entry may lead to it", () => {
  assert.deepEqual(turnPage(page(), PAGE, news({ claims: claim(A) })), page(A));
  assert.deepEqual(turnPage(page(), PAGE + 1, news({ claims: claim(A) })), page());
  const leads = (instanceId: string) => news({ mayLead: (_, id) => id === instanceId });
  assert.deepEqual(turnPage(page(A), PAGE, leads("i-a")), page(A));
  assert.deepEqual(turnPage(page(A), PAGE, leads("i-b")), page(), "and no longer");
  assert.deepEqual(turnPage(page(A), PAGE, { ...leads("i-a"), claims: claim(B) }), page(A, B));
  assert.deepEqual(turnPage(page(A, B), PAGE, { ...leads("i-b"), claims: claim(A) }), page(B, A));
  assert.deepEqual(turnPage(page(A), PAGE, { ...leads("i-b"), claims: claim(B) }), page(B));
  assert.deepEqual(turnPage(page(A), PAGE, news({ claims: claim(A) })), page(A));
});

Deno.test("a page can be read back, and garbage cannot", () => {
  const subnet = fc.tuple(fc.nat(255), fc.nat(255)).map(([a, b]) => `10.${a}.${b}.0/24`);
  const booked = fc.record({
    instanceId: fc.stringMatching(/^i-[a-z0-9]{1,20}$/),
    publicIp: fc.option(fc.ipV4(), { nil: undefined }),
  }).map(({ instanceId, publicIp }): BookedClaim => ({
    instanceId,
    ...(publicIp === undefined ? {} : { publicIp }),
  }));
  fc.assert(fc.property(fc.array(fc.tuple(subnet, fc.array(booked))), (entries) => {
    const written = new Map(entries);
    const text = encodeBookPage(written);
    assert.deepEqual(parseBookPage(text), written);
    assert.equal(encodeBookPage(parseBookPage(text)), text, "the same text each time");
  }));
  for (
    const text of [
      "",
      "null",
      '{"x":{}}',
      `{"${D}":[{"instance":"a b"}]}`,
      `{"${D}":{"instance":"i-a"}}`,
      `{"${D}":1}`,
    ]
  ) {
    assert.throws(() => parseBookPage(text), /Cannot read a page/, text);
  }
});
