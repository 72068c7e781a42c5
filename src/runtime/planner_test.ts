import assert from "node:assert/strict";
import type { Lease } from "../lease/lease.ts";
import { LeaseMap } from "../lease/lease_map.ts";
import { Address, Prefix } from "../net/mod.ts";
import type { OpenBackend } from "./runtime.ts";
import type { Desired } from "../state/desired.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";
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

/** A planner whose backend wants a route for each peer, and a kernel parameter for the host. */
function openPlanner(
  { blackhole = false, gather }: {
    blackhole?: boolean;
    gather?: NonNullable<OpenBackend["gather"]>;
  } = {},
) {
  const network = {
    ipv4: {
      network: Prefix.parse("10.5.0.0/16"),
      subnetLength: 24,
      subnetMin: Address.parse("10.5.1.0"),
      subnetMax: Address.parse("10.5.255.0"),
    },
  };
  const leases = new LeaseMap({ network });
  let made = 0;
  let onPeer = () => {};
  let value = 0;
  const planner = new Planner({
    runtime: {
      bindPlan: () => () => ({
        planHost: () => ({ sysctls: [{ name: "edition", value: String(value++) }] }),
        planPeer({ subnet }) {
          onPeer();
          return {
            routes: [{ destination: subnet.ipv4!, type: "unicast", protocol: ROUTE_PROTOCOL }],
          };
        },
        claims: () => [],
      }),
      ...(gather ? { gather } : {}),
    },
    leases,
    network,
    host: () => ({ link: "eth0", mtuBytes: 1500 }),
    own: () => own,
    blackhole,
    onPlan: () => void made++,
  });
  return {
    planner,
    get made() {
      return made;
    },
    change: (n: number) => planner.leasesChanged(leases.put(entry(n))),
    remove: (n: number) => planner.leasesChanged(leases.delete(entry(n).key)),
    open: (...numbers: number[]) => {
      leases.replace(numbers.map(entry));
      planner.leasesChanged("all");
    },
    set onPeer(callback: () => void) {
      onPeer = callback;
    },
  };
}

const routes = (state: Desired | undefined) =>
  state && [...state.routes].map(({ destination }) => String(destination)).toSorted();
const edition = (state: Desired | undefined) => state?.host.sysctls?.[0]?.value;

Deno.test("Planner plans what has changed, and nothing before the leases are known", async () => {
  const planning = openPlanner();
  const { planner, open, change, remove } = planning;
  await planner.prepare({ signal });
  assert.deepEqual([planner.desired, planner.latest, planning.made], [undefined, undefined, 0]);
  open(1, 2, 3);
  assert.equal(planner.latest, undefined);
  await planner.prepare({ signal });
  assert.deepEqual(routes(planner.latest), ["10.5.2.0/24", "10.5.3.0/24"], "not the own one's");
  let planned = 0;
  planning.onPeer = () => void planned++;
  await planner.prepare({ signal });
  assert.equal(planning.made, 1);
  change(4);
  change(5);
  remove(3);
  await planner.prepare({ signal });
  assert.deepEqual(routes(planner.latest), ["10.5.2.0/24", "10.5.4.0/24", "10.5.5.0/24"]);
  assert.deepEqual([planned, planning.made], [2, 2]);
  planner.invalidate();
  await planner.prepare({ signal });
  assert.equal(planned, 5, "all are planned again");
});

Deno.test("Planner says at once what follows from the host alone", async () => {
  const { planner, open } = openPlanner();
  open(1, 2);
  assert.deepEqual([edition(planner.desired), planner.latest], ["0", undefined]);
  await planner.prepare({ signal });
  const planned = edition(planner.latest);
  assert.equal(edition(planner.desired), planned, "it is not made once more");
  planner.invalidatePlan();
  assert.notEqual(edition(planner.desired), planned);
  assert.deepEqual(routes(planner.desired), ["10.5.2.0/24"]);
});

Deno.test("Planner.prepare() lets other work in, and leaves what changes meanwhile to the next", async () => {
  const planning = openPlanner();
  const { planner, open, change } = planning;
  const all = Array.from({ length: 200 }, (_, n) => n + 1);
  open(...all);
  let turns = 0;
  let changes = 0;
  const timer = setInterval(() => turns++ === 0 && change(201), 0);
  planning.onPeer = () => {
    const end = performance.now() + 0.2;
    while (performance.now() < end) changes++;
  };
  try {
    await planner.prepare({ signal });
    assert.ok(turns > 0, "other work was let in");
    assert.equal(planner.latest?.routes.size, 199);
    await planner.prepare({ signal });
  } finally {
    clearInterval(timer);
  }
  assert.equal(planner.latest?.routes.size, 200);
  assert.equal(planning.made, 2);
});

Deno.test("Planner.prepare() ends on abort, and what was due stays due", async () => {
  const { planner, open } = openPlanner();
  open(1, 2);
  const stop = new AbortController();
  stop.abort(new Error("enough"));
  const planning = openPlanner({
    gather: (_own, _peers, _changed, { signal }) => {
      signal.throwIfAborted();
      return Promise.resolve(new Set());
    },
  });
  planning.open(1, 2);
  await assert.rejects(planning.planner.prepare({ signal: stop.signal }), /enough/);
  assert.equal(planning.planner.latest, undefined);
  await planning.planner.prepare({ signal });
  assert.deepEqual(routes(planning.planner.latest), ["10.5.2.0/24"]);
  await planner.prepare({ signal });
});

Deno.test("Planner makes all anew after a plan that has failed, and wants nothing meanwhile", async () => {
  const planning = openPlanner();
  const { planner, open, change } = planning;
  open(1, 2);
  await planner.prepare({ signal });
  planning.onPeer = () => {
    throw new Error("a fault");
  };
  change(3);
  await assert.rejects(planner.prepare({ signal }), /a fault/);
  assert.equal(planner.latest, undefined);
  planning.onPeer = () => {};
  await planner.prepare({ signal });
  assert.deepEqual(routes(planner.latest), ["10.5.2.0/24", "10.5.3.0/24"]);
});

Deno.test("Planner has the backend look at changed leases, and plans those it has news of", async () => {
  const looked: string[] = [];
  let news: ReadonlySet<string> = new Set();
  const planning = openPlanner({
    gather: (_own, _peers, changed) => {
      looked.push(changed === "all" ? changed : [...changed].join(" "));
      return Promise.resolve(news);
    },
  });
  const { planner, open, change } = planning;
  open(1, 2, 3);
  await planner.prepare({ signal });
  let planned = 0;
  planning.onPeer = () => void planned++;
  change(4);
  await planner.prepare({ signal });
  news = new Set(["10.5.2.0-24"]);
  await planner.prepare({ signal });
  assert.deepEqual([looked, planned], [["all", "10.5.4.0-24", ""], 2]);
});

Deno.test("Planner wants a blackhole for the own subnet on demand, and knows peers' addresses", async () => {
  const { planner, open, change } = openPlanner({ blackhole: true });
  open(1, 2);
  await planner.prepare({ signal });
  assert.deepEqual(
    [...planner.latest?.routes ?? []].map(({ type, destination }) => `${type} ${destination}`),
    ["blackhole 10.5.1.0/24", "unicast 10.5.2.0/24"],
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
