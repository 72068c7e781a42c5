import assert from "node:assert/strict";
import { LeaseMap } from "../lease/lease_map.ts";
import { Address, Prefix } from "../net/mod.ts";
import type { LeaseEvent, LeaseUpdate } from "../store/lease_store.ts";
import { followLeases } from "./follow_leases.ts";
import { ProblemLog } from "../status/problems.ts";
import { Readiness } from "../status/readiness.ts";
import { SILENT } from "../../tests/support/log.ts";

const { signal } = new AbortController();
const log = SILENT;
const entry = (n: number) => ({
  key: `10.${n >> 8}.${n & 255}.0-24`,
  value: '{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1}}',
  order: String(n + 1),
});

/** Follows a store that says `updates`; answers how many leases were known at each change. */
async function follow(updates: readonly LeaseUpdate[]): Promise<number[]> {
  const leases = new LeaseMap({
    network: {
      ipv4: {
        network: Prefix.parse("10.0.0.0/8"),
        subnetLength: 24,
        subnetMin: Address.parse("10.0.1.0"),
        subnetMax: Address.parse("10.255.255.0"),
      },
    },
  });
  const changes: number[] = [];
  using readiness = new Readiness();
  await followLeases({
    store: {
      async *followLeases() {
        for (const update of updates) yield await Promise.resolve(update);
      },
    },
    leases,
    skipped: new ProblemLog(log),
    condition: readiness.condition("store"),
    log,
    onChange: () => changes.push(leases.size),
    signal,
  });
  return changes;
}

Deno.test("followLeases() tells once of all that an update changes, and of the first snapshot", async () => {
  const puts = (...numbers: number[]): LeaseEvent[] =>
    numbers.map((n) => ({ type: "put", entry: entry(n) }));
  const changes = await follow([
    { type: "snapshot", entries: [] },
    { type: "events", events: puts(1, 2, 3) },
    { type: "events", events: puts(3) },
    { type: "events", events: [{ type: "delete", key: entry(1).key }, ...puts(4)] },
    { type: "snapshot", entries: [2, 3, 4].map(entry) },
  ]);
  assert.deepEqual(changes, [0, 3, 3]);
});

Deno.test("followLeases() lets other work in while it reads thousands of events", async () => {
  const events = Array.from({ length: 5_000 }, (_, n): LeaseEvent => ({
    type: "put",
    entry: entry(n),
  }));
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  try {
    assert.deepEqual(
      await follow([{ type: "snapshot", entries: [] }, { type: "events", events }]),
      [
        0,
        5_000,
      ],
    );
  } finally {
    clearInterval(timer);
  }
  assert.ok(turns > 0);
});
