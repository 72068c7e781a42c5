import assert from "node:assert/strict";
import { LeaseMap } from "../lease/lease_map.ts";
import { Prefix } from "../net/mod.ts";
import { Desired } from "../state/desired.ts";
import type { CloudRouteSpec } from "../state/mod.ts";
import type { LeaseState, OwnLease } from "../store/lease_store.ts";
import type { RemoteTables } from "./runtime.ts";
import { Cell } from "../util/cell.ts";
import { RemoteLoop } from "./remote_loop.ts";
import type { Planner } from "./planner.ts";
import { Readiness } from "../status/readiness.ts";
import { SILENT } from "../../tests/support/log.ts";

Deno.test("RemoteLoop writes nothing for a lease that is not held, be it taken or expired", () => {
  const state = new Cell<LeaseState>({ held: true, expiresAt: undefined });
  let desired: () => Desired | undefined = () => undefined;
  let disowned = 0;
  const cloud = {
    stages: (given: () => Desired | undefined) => {
      desired = given;
      return [];
    },
    resyncMs: 60_000,
    changes: new Cell(0),
    waitingFor: () => undefined,
    disown: () => void disowned++,
  } as unknown as RemoteTables;
  const wanted = Desired.of({ cloudRoutes: [] });
  using readiness = new Readiness();
  new RemoteLoop({
    cloud,
    planner: { latest: wanted } as unknown as Planner,
    leases: new LeaseMap({ network: { ipv4: { network: Prefix.parse("10.24.0.0/16") } } as never }),
    keeper: { state } as unknown as OwnLease,
    condition: readiness.condition("cloud"),
    log: SILENT,
  });
  assert.equal(desired(), wanted);
  for (const loss of ["taken", "expired"] as const) {
    state.set({ held: false, loss, message: "lost" });
    assert.equal(desired(), undefined);
    state.set({ held: true, expiresAt: undefined });
    assert.equal(desired(), wanted);
  }
  assert.equal(disowned, 2);
});

Deno.test("RemoteLoop asks for a round only where its own Tables are to be another way", () => {
  const entry = (destination: string) => ({
    routeTableId: "vtb-1",
    destination: Prefix.parse(destination),
    instanceId: "i-1",
  });
  const desired = Desired.of({ cloudRoutes: [entry("10.24.1.0/24")] });
  const cloud = {
    stages: (given: () => Desired | undefined) => [{
      table: {
        kind: {
          id: "route-entry",
          key: (each: CloudRouteSpec) => `${each.destination}`,
          equal: (a: CloudRouteSpec, b: CloudRouteSpec) => a.instanceId === b.instanceId,
        },
      },
      desired: () => given()?.host.cloudRoutes,
    }],
    resyncMs: 60_000,
    changes: new Cell(0),
  } as unknown as RemoteTables;
  using readiness = new Readiness();
  const loop = new RemoteLoop({
    cloud,
    planner: { latest: desired, desired } as unknown as Planner,
    leases: new LeaseMap({ network: { ipv4: { network: Prefix.parse("10.24.0.0/16") } } as never }),
    keeper: { state: new Cell({ held: true, expiresAt: undefined }) } as unknown as OwnLease,
    condition: readiness.condition("cloud"),
    log: SILENT,
  });
  let asked = 0;
  loop.reconciler.desiredChanged = () => void asked++;
  loop.planChanged();
  assert.equal(asked, 1, "the first plan");
  desired.host = { cloudRoutes: [entry("10.24.1.0/24")], links: [] };
  loop.planChanged();
  assert.equal(asked, 1, "the same entries in another list");
  desired.host = { cloudRoutes: [entry("10.24.2.0/24")] };
  loop.planChanged();
  assert.equal(asked, 2);
});
