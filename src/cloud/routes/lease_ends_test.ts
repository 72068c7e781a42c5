import assert from "node:assert/strict";
import { LeaseMap } from "../../lease/lease_map.ts";
import { Prefix } from "../../net/mod.ts";
import { LeaseEnds } from "./lease_ends.ts";

function lease(n: number) {
  return { key: `10.24.${n}.0-24`, value: '{"PublicIP":"10.0.0.1"}', order: "1" };
}

function open(numbers: readonly number[]) {
  const leases = new LeaseMap({
    network: { ipv4: { network: Prefix.parse("10.24.0.0/16") } } as never,
  });
  const clock = { now: 0 };
  const ends = new LeaseEnds(leases, () => clock.now);
  const changed = () =>
    ends.changed(
      [...leases.leases()].map(({ key, subnet }) => ({
        key,
        destination: subnet.ipv4!,
        instanceId: `i-${key.split(".")[2]}`,
      })),
    );
  leases.replace(numbers.map(lease));
  changed();
  const proved = (afterMs = 0) => {
    clock.now += afterMs;
    const proved = [1, 2, 3, 4].filter((n) => ends.has(`10.24.${n}.0/24`, `i-${n}`));
    assert.equal(ends.count, proved.length);
    return proved;
  };
  const end = (...ended: number[]) => {
    for (const n of ended) leases.delete(lease(n).key);
    changed();
  };
  return { leases, ends, changed, proved, end };
}

Deno.test("LeaseEnds knows of a lease that ends with no other around that time", () => {
  const { ends, proved, end } = open([1, 2, 3]);
  end(1);
  assert.deepEqual(proved(), []);
  assert.equal(ends.dueMs, 10_000);
  assert.deepEqual(proved(10_000), [1]);
  assert.equal(ends.dueMs, Infinity);
  end(2);
  assert.deepEqual(proved(10_000), [1, 2]);
});

Deno.test("LeaseEnds concludes nothing from leases that go together", () => {
  const together = open([1, 2, 3]);
  together.end(1, 2);
  assert.deepEqual(together.proved(60_000), []);
  const trickling = open([1, 2, 3, 4]);
  for (const n of [1, 2, 3, 4]) {
    trickling.end(n);
    assert.deepEqual(trickling.proved(9_000), []);
  }
  assert.deepEqual(trickling.proved(60_000), []);
});

Deno.test("LeaseEnds concludes nothing from a listing, nor from what is back", () => {
  const listed = open([1, 2]);
  listed.leases.replace([lease(2)]);
  listed.changed();
  assert.deepEqual(listed.proved(60_000), []);
  // A listing that comes soon after shows a store that was away.
  const late = open([1, 2, 3]);
  late.end(1);
  late.leases.replace([lease(3)]);
  late.changed();
  assert.deepEqual(late.proved(60_000), []);
  const back = open([1, 2]);
  back.end(1);
  back.leases.put(lease(1));
  back.changed();
  assert.deepEqual(back.proved(60_000), []);
  back.end(1);
  assert.equal(back.proved(10_000).length, 1);
  back.leases.put(lease(1));
  back.changed();
  assert.deepEqual(back.proved(), []);
  back.end(1);
  assert.equal(back.proved(10_000).length, 1);
  back.leases.replace([lease(2)]);
  back.changed();
  assert.deepEqual(back.proved(), [], "the store may be another one");
});
