import assert from "node:assert/strict";
import type { Planning } from "../backends/mod.ts";
import type { Lease } from "../lease/lease.ts";
import { LeaseMap } from "../lease/lease_map.ts";
import { Address, Prefix } from "../net/mod.ts";
import type { DesiredState } from "../state/mod.ts";
import { Planner } from "./planner.ts";

const { signal } = new AbortController();
const entry = (n: number) => ({
  key: `10.5.${n}.0-24`,
  value: `{"PublicIP":"192.0.2.${n}"}`,
  order: String(n),
});
const own: Lease = {
  key: "10.5.1.0-24",
  subnet: { ipv4: Prefix.parse("10.5.1.0/24") },
  attributes: { backendType: "" },
};

/** A planner whose backend wants a skipped peer for each lease, and is in no hurry. */
function openPlanner({ blackhole = false } = {}) {
  const leases = new LeaseMap({
    network: {
      ipv4: {
        network: Prefix.parse("10.5.0.0/16"),
        subnetLength: 24,
        subnetMin: Address.parse("10.5.1.0"),
        subnetMax: Address.parse("10.5.255.0"),
      },
    },
  });
  const made: DesiredState[] = [];
  let onStep = () => {};
  const planner = new Planner({
    runtime: {
      *plan(_host, _own, peers): Planning {
        const end = performance.now() + 12;
        while (performance.now() < end) yield onStep();
        return {
          skippedPeers: peers.map(({ key }) => ({ key, code: "peer-address", reason: "" })),
        };
      },
    },
    leases,
    host: () => ({ link: "eth0", mtuBytes: 1500 }),
    own: () => own,
    blackhole,
    onPlan: (state) => made.push(state),
  });
  return {
    planner,
    made,
    change: (n: number) => {
      leases.put(entry(n));
      planner.invalidate();
    },
    open: (...numbers: number[]) => leases.replace(numbers.map(entry)),
    set onStep(callback: () => void) {
      onStep = callback;
    },
  };
}

const keys = (state: DesiredState | undefined) => state?.skippedPeers?.map(({ key }) => key);

Deno.test("Planner makes a plan once for all that changed, and none before the leases are known", async () => {
  const { planner, made, open, change } = openPlanner();
  await planner.prepare({ signal });
  assert.deepEqual([planner.desired, planner.latest, made], [undefined, undefined, []]);
  open(1, 2);
  assert.equal(planner.latest, undefined);
  await planner.prepare({ signal });
  assert.deepEqual(keys(planner.latest), ["10.5.2.0-24"], "the own lease is no peer's");
  await planner.prepare({ signal });
  assert.equal(planner.desired, planner.latest);
  assert.deepEqual(made, [planner.latest]);
  change(3);
  planner.invalidatePlan();
  assert.deepEqual(keys(planner.latest), ["10.5.2.0-24"], "as it was made last");
  assert.deepEqual(keys(planner.desired), ["10.5.2.0-24", "10.5.3.0-24"], "made at once");
  await planner.prepare({ signal });
  assert.equal(planner.latest, planner.desired);
  assert.equal(made.length, 2);
});

Deno.test("Planner.prepare() lets other work in, and leaves what changes meanwhile to the next", async () => {
  const planning = openPlanner();
  const { planner, made, open, change } = planning;
  open(1, 2);
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  let changes = 0;
  planning.onStep = () => void (changes++ === 0 && change(3));
  try {
    await planner.prepare({ signal });
  } finally {
    clearInterval(timer);
  }
  assert.ok(turns > 0, "other work was let in");
  assert.deepEqual(keys(planner.latest), ["10.5.2.0-24"]);
  await planner.prepare({ signal });
  assert.deepEqual(keys(planner.latest), ["10.5.2.0-24", "10.5.3.0-24"]);
  assert.equal(made.length, 2);
});

Deno.test("Planner.prepare() does not put an older plan in the place of one made at once", async () => {
  const { planner, made, open, change } = openPlanner();
  open(1, 2);
  const preparing = planner.prepare({ signal });
  change(3);
  const newest = planner.desired;
  assert.deepEqual(keys(newest), ["10.5.2.0-24", "10.5.3.0-24"]);
  await preparing;
  assert.deepEqual([planner.latest, planner.desired, made], [newest, newest, [newest]]);
});

Deno.test("Planner.prepare() ends on abort, and what was due stays due", async () => {
  const { planner, open } = openPlanner();
  open(1, 2);
  const stop = new AbortController();
  const preparing = planner.prepare({ signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(preparing, /enough/);
  assert.equal(planner.latest, undefined);
  await planner.prepare({ signal });
  assert.deepEqual(keys(planner.latest), ["10.5.2.0-24"]);
});

Deno.test("Planner wants a blackhole for the own subnet on demand, and knows peers' addresses", async () => {
  const { planner, open, change } = openPlanner({ blackhole: true });
  open(1, 2);
  await planner.prepare({ signal });
  assert.deepEqual(
    planner.latest?.routes?.map(({ type, destination }) => `${type} ${destination}`),
    ["blackhole 10.5.1.0/24"],
  );
  const isPeer = (text: string) => planner.isPeer(Address.parse(text));
  assert.deepEqual([isPeer("192.0.2.2"), isPeer("192.0.2.1"), isPeer("192.0.2.3")], [
    true,
    false,
    false,
  ]);
  change(3);
  assert.ok(isPeer("192.0.2.3"));
});
