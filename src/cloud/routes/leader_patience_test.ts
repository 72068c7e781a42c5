import assert from "node:assert/strict";
import { leaderPatienceMs } from "./leader_patience.ts";

const base = { state: undefined, tunnels: true, hosts: 1_000, position: 0.5 } as const;

Deno.test("a host without a route does without a writer for a minute", () => {
  assert.equal(leaderPatienceMs(base), 60_000);
  assert.equal(leaderPatienceMs({ ...base, state: "pending" }), 60_000);
});

Deno.test("a thousand hosts with routes do not all call the service in one minute", () => {
  const due = Array.from(
    { length: 1_000 },
    (_, n) => leaderPatienceMs({ ...base, state: "routed", position: n / 1_000 }),
  );
  const perMinute = Map.groupBy(due, (ms) => Math.floor(ms / 60_000));
  for (const hosts of perMinute.values()) assert(hosts.length <= 300, String(hosts.length));
  assert(Math.min(...due) >= 60_000);
  assert(leaderPatienceMs({ ...base, state: "routed", hosts: 10 }) < 65_000, "a small cluster");
});

Deno.test("a host that the tunnel reaches leaves the full table alone", () => {
  assert.equal(leaderPatienceMs({ ...base, state: "overflow" }), Infinity);
  assert.equal(leaderPatienceMs({ ...base, state: "overflow", tunnels: false }), 60_000);
});
