import assert from "node:assert/strict";
import { Prefix } from "../../net/mod.ts";
import type { NewRoute } from "../routes/provider.ts";
import { formatCloudRoute, leadsTo } from "../routes/route_entry.ts";
import { AliApiError } from "./errors.ts";
import { AliRoutes } from "./route_api.ts";
import type { RefusedRouteEntry, VpcClient } from "./vpc_client.ts";
import type { RouteEntry } from "./vpc_replies.ts";

const { signal } = new AbortController();
const destination = Prefix.parse("10.24.7.0/24");

function entry(change: Partial<RouteEntry>): RouteEntry {
  return {
    id: "rte-1",
    routeTableId: "vtb-1",
    destination,
    status: "Available",
    type: "Custom",
    name: "",
    serviceType: "",
    nextHops: [{ type: "instance", id: "i-a" }],
    ...change,
  };
}

Deno.test("AliRoutes.read() tells where entries lead, and which of them are the operator's", async () => {
  const rows: readonly (readonly [change: Partial<RouteEntry>, leads: boolean, text: string])[] = [
    [{}, true, "via i-a in vtb-1 (rte-1)"],
    [{ status: "Modifying" }, true, "via i-a in vtb-1 (rte-1, Modifying)"],
    [{ status: "Unheard-of" }, true, "via i-a in vtb-1 (rte-1, Unheard-of)"],
    [{ nextHops: [] }, false, "in vtb-1 (rte-1)"],
    [{ nextHops: [{ type: "vpngateway", id: "i-a" }] }, false, "via i-a in vtb-1 (rte-1)"],
    [{ nextHops: [{ type: "local", id: "" }], type: "System" }, false, "via local in vtb-1 "],
    [{ type: "CEN" }, false, "via i-a in vtb-1 (rte-1, type CEN)"],
    [{ serviceType: "TR" }, false, "via i-a in vtb-1 (rte-1, managed by TR)"],
    [
      { nextHops: [{ type: "instance", id: "i-a" }, { type: "instance", id: "i-b" }] },
      false,
      "via i-a, i-b in vtb-1 (rte-1)",
    ],
  ];
  for (const [change, leads, text] of rows) {
    const vpc = { describeRouteEntryList: () => Promise.resolve([entry(change)]) };
    const [route] = await new AliRoutes(vpc as unknown as VpcClient)
      .read("vtb-1", destination, { signal });
    assert.equal(leadsTo(route!, "i-a"), leads, Deno.inspect(change));
    assert(formatCloudRoute(route!).startsWith(`${destination} ${text}`), formatCloudRoute(route!));
  }
  const states = ["Available", "Modifying", "Pending", "Deleting", "Unheard-of"].map((status) => {
    const vpc = { describeRouteEntryList: () => Promise.resolve([entry({ status })]) };
    return new AliRoutes(vpc as unknown as VpcClient).read("vtb-1", destination, { signal });
  });
  assert.deepEqual(
    (await Promise.all(states)).map(([route]) => route!.state),
    ["ready", "changing", "pending", "pending", "pending"],
  );
});

Deno.test("AliRoutes.batches.create() puts refusals into the order of what was asked", async () => {
  const routes = [7, 8, 9].map((n): NewRoute => ({
    routeTableId: "vtb-1",
    destination: Prefix.parse(`10.24.${n}.0/24`),
    instanceId: `i-${n}`,
    mark: "flanneld/x",
  }));
  const error = new AliApiError({ action: "vpc:X", message: "" }, { status: 200, code: "Y" });
  const create = (refused: readonly Omit<RefusedRouteEntry, "error">[]) => {
    const vpc = {
      createRouteEntries: () => Promise.resolve(refused.map((each) => ({ ...each, error }))),
    };
    return new AliRoutes(vpc as unknown as VpcClient).batches.create(routes, { signal });
  };
  assert.deepEqual(await create([]), [undefined, undefined, undefined]);
  assert.deepEqual(
    await create([
      { destination: Prefix.parse("10.24.9.0/24"), nextHop: "i-9" },
      { destination: Prefix.parse("10.24.7.0/24"), nextHop: "" },
    ]),
    [error, undefined, error],
  );
  for (
    const unasked of [
      { destination: Prefix.parse("10.24.10.0/24"), nextHop: "" },
      { destination: Prefix.parse("10.24.7.0/24"), nextHop: "i-8" },
      { nextHop: "i-7" },
    ]
  ) {
    await assert.rejects(
      () => create([unasked]),
      (thrown) => thrown instanceof AliApiError && thrown.outcomeUnknown,
    );
  }
});
