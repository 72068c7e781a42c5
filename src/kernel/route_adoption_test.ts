import assert from "node:assert/strict";
import { Address, Prefix } from "../net/mod.ts";
import { ROUTE_PROTOCOL, type RouteSpec } from "../state/mod.ts";
import { isAdoptable } from "./route_adoption.ts";

const destination = Prefix.parse("10.5.7.0/24");

function route(
  { gateway, ...rest }: Partial<Omit<RouteSpec, "gateway">> & { readonly gateway?: string },
): RouteSpec {
  return {
    destination,
    type: "unicast",
    protocol: 3,
    ...(gateway === undefined ? {} : { gateway: Address.parse(gateway) }),
    ...rest,
  };
}

const desired = route({
  gateway: "10.5.7.0",
  link: "flannel.1",
  onlink: true,
  protocol: ROUTE_PROTOCOL,
});

const cases: [title: string, actual: RouteSpec, expected: {
  readonly desired: boolean;
  readonly gone: boolean;
  readonly wasOurs: boolean;
}][] = [
  [
    "upstream's vxlan route",
    route({ gateway: "10.5.7.0", link: "flannel.1", onlink: true }),
    { desired: true, gone: true, wasOurs: true },
  ],
  [
    "upstream's vxlan route of another VNI",
    route({ gateway: "10.5.7.0", link: "flannel.9", onlink: true }),
    { desired: true, gone: false, wasOurs: true },
  ],
  [
    "upstream's host-gw or direct route",
    route({ gateway: "192.0.2.7", link: "eth0" }),
    { desired: true, gone: false, wasOurs: true },
  ],
  [
    "a route through somebody who is no host of the network",
    route({ gateway: "192.0.2.99", link: "eth0" }),
    { desired: false, gone: false, wasOurs: true },
  ],
  [
    "a route over our link that upstream would not make",
    route({ gateway: "10.5.8.9", link: "flannel.1", onlink: true }),
    { desired: true, gone: false, wasOurs: true },
  ],
  ["a black hole", route({ type: "blackhole" }), { desired: false, gone: false, wasOurs: true }],
  [
    "an administrator's route",
    route({ gateway: "192.0.2.7", link: "eth0", protocol: 4 }),
    { desired: false, gone: false, wasOurs: true },
  ],
  [
    "a routing daemon's route",
    route({ gateway: "192.0.2.7", link: "eth0", protocol: 12 }),
    { desired: false, gone: false, wasOurs: false },
  ],
  [
    "the kernel's route of a bridge",
    route({ link: "cni0", protocol: 2 }),
    { desired: false, gone: false, wasOurs: false },
  ],
];

for (const [title, actual, expected] of cases) {
  Deno.test(`isAdoptable() of ${title}`, () => {
    const context = {
      isPeer: (address: Address) => address.toString() === "192.0.2.7",
      isOwnLink: (name: string) => name === "flannel.1",
    };
    assert.deepEqual({
      desired: isAdoptable(actual, { ...context, desired, wasOurs: false }),
      gone: isAdoptable(actual, { ...context, desired: undefined, wasOurs: false }),
      wasOurs: isAdoptable(actual, { ...context, desired, wasOurs: true }),
    }, expected);
  });
}
