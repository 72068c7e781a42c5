import assert from "node:assert/strict";
import fc from "fast-check";
import { FakeKernel } from "../../tests/fakes/fake_netlink.ts";
import { loadGoRegex } from "../cli/go_syntax.ts";
import { OperatorError } from "../errors.ts";
import { Address, InterfaceAddress } from "../net/mod.ts";
import {
  type InterfaceChoice,
  type InterfaceCriteria,
  refreshExternalInterface,
  selectExternalInterface,
} from "./external_interface.ts";
import { waitForExternalInterface } from "./find_interface.ts";
import type { LinkAddress } from "./netlink.ts";
import type { InterfaceFacts } from "./own_address.ts";

const IPV4: InterfaceCriteria = { families: [4], interfaces: [], patterns: [] };
const DUAL: InterfaceCriteria = { ...IPV4, families: [4, 6] };

/** A host with two links of both families. */
function createHost(): FakeKernel {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  kernel.addLink("eth1", { mtuBytes: 9000 });
  kernel.addAddress("eth0", "192.0.2.10/24");
  kernel.addAddress("eth0", "2001:db8:0::10/64");
  kernel.addAddress("eth0", "fe80::10/64");
  kernel.addAddress("eth1", "198.51.100.10/24");
  kernel.addAddress("eth1", "2001:db8:1::10/64");
  return kernel;
}

function select(
  kernel: FakeKernel,
  criteria: InterfaceCriteria,
  facts: Partial<InterfaceFacts> = {},
): InterfaceChoice {
  const { links, addresses, routes } = kernel;
  return selectExternalInterface(criteria, { links, addresses, routes, ...facts });
}

/** `eth0 192.0.2.10 2001:db8::10`, or the reasons why there is none. */
function outcome({ found, explain }: InterfaceChoice): string {
  if (!found) return `none: ${explain.join("; ")}`;
  return [found.link, found.address, found.addressV6].filter((part) => part).join(" ");
}

function gateway(text: string): { gateway: Address } {
  return { gateway: Address.parse(text) };
}

Deno.test("the default route with the lowest metric wins, whatever the order", () => {
  const kernel = createHost();
  kernel.addRoute("0.0.0.0/0", { dev: "eth0", metric: 200, ...gateway("192.0.2.1") });
  kernel.addRoute("0.0.0.0/0", { dev: "eth1", metric: 100, ...gateway("198.51.100.1") });
  const choice = select(kernel, IPV4);
  assert.equal(outcome(choice), "eth1 198.51.100.10");
  assert.equal(choice.found?.mtuBytes, 9000);
  assert.equal(choice.found?.reason, "it has the best default route, metric 100");
  assert.equal(String(choice.found?.publicIp), "198.51.100.10");
});

Deno.test("default routes that lead nowhere, or by another table, do not count", () => {
  const kernel = createHost();
  kernel.addRoute("0.0.0.0/0", { type: "unreachable", metric: 1 });
  kernel.addRoute("0.0.0.0/0", { dev: "eth0", metric: 5, dead: true });
  kernel.addRoute("0.0.0.0/1", { dev: "eth0", metric: 2 });
  assert.equal(outcome(select(kernel, IPV4)), "none: no IPv4 default route in table main");
  kernel.addRoute("0.0.0.0/0", { dev: "eth1", metric: 9 });
  assert.equal(outcome(select(kernel, IPV4)), "eth1 198.51.100.10");
});

Deno.test("of a multipath default route the living hop of the highest weight wins", () => {
  const kernel = createHost();
  const [eth0, eth1] = ["eth0", "eth1"].map((name) =>
    kernel.links.find((link) => link.name === name)!.index
  );
  const hop = { onlink: false, dead: false };
  kernel.addRoute("0.0.0.0/0", {
    nextHops: [
      { ...hop, linkIndex: eth0!, weight: 1 },
      { ...hop, linkIndex: eth1!, weight: 5 },
    ],
  });
  assert.equal(outcome(select(kernel, IPV4)), "eth1 198.51.100.10");
  kernel.routes.pop();
  kernel.addRoute("0.0.0.0/0", {
    nextHops: [
      { ...hop, linkIndex: eth0!, weight: 1 },
      { ...hop, linkIndex: eth1!, weight: 5, dead: true },
    ],
  });
  assert.equal(outcome(select(kernel, IPV4)), "eth0 192.0.2.10");
});

Deno.test("the next default route is taken where the best one's link does not qualify", () => {
  const kernel = createHost();
  kernel.addLink("eth2", { up: false });
  kernel.addLink("eth3");
  kernel.addRoute("0.0.0.0/0", { dev: "eth2", metric: 1 });
  kernel.addRoute("0.0.0.0/0", { dev: "eth3", metric: 2 });
  kernel.addRoute("0.0.0.0/0", { dev: "eth0", metric: 3 });
  const choice = select(kernel, IPV4);
  assert.equal(outcome(choice), "eth0 192.0.2.10");
  assert.deepEqual(choice.explain, [
    "eth2 (it has the best default route, metric 1): it is down",
    "eth3 (it has the next best default route, metric 2): it has no usable IPv4 address",
    "eth0: chosen, it has the next best default route, metric 3",
  ]);
});

Deno.test("dual stack needs default routes of both families on one link", () => {
  const kernel = createHost();
  kernel.addRoute("0.0.0.0/0", { dev: "eth0", metric: 1 });
  assert.equal(
    outcome(select(kernel, DUAL)),
    "none: no IPv6 default route in table main; " +
      "eth0: has the IPv4 default route with metric 1, but no IPv6 default route",
  );
  kernel.addRoute("::/0", { dev: "eth1" });
  kernel.addRoute("0.0.0.0/0", { dev: "eth1", metric: 2 });
  assert.equal(outcome(select(kernel, DUAL)), "eth1 198.51.100.10 2001:db8:1::10");
  assert.equal(outcome(select(kernel, { ...DUAL, families: [6] })), "eth1 2001:db8:1::10");
});

Deno.test("the source address of the default route is preferred, if it is fit", () => {
  const kernel = createHost();
  kernel.addAddress("eth0", "192.0.2.11/24");
  kernel.addAddress("eth0", "192.0.2.12/24", { deprecated: true });
  kernel.addRoute("0.0.0.0/0", { dev: "eth0", source: Address.parse("192.0.2.11") });
  assert.equal(outcome(select(kernel, IPV4)), "eth0 192.0.2.11");
  kernel.routes.pop();
  kernel.addRoute("0.0.0.0/0", { dev: "eth0", source: Address.parse("192.0.2.12") });
  assert.equal(outcome(select(kernel, IPV4)), "eth0 192.0.2.10");
});

Deno.test("global addresses come before link-local ones, lasting before limited ones", () => {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  kernel.addAddress("eth0", "169.254.1.1/16");
  const criteria = { ...IPV4, interfaces: ["eth0"] };
  assert.equal(outcome(select(kernel, criteria)), "eth0 169.254.1.1");
  kernel.addAddress("eth0", "192.0.2.2/24", { permanent: false });
  assert.equal(outcome(select(kernel, criteria)), "eth0 192.0.2.2");
  kernel.addAddress("eth0", "198.51.100.3/24");
  assert.equal(outcome(select(kernel, criteria)), "eth0 198.51.100.3");
  kernel.addAddress("eth0", "203.0.113.4/24");
  assert.equal(outcome(select(kernel, criteria)), "eth0 198.51.100.3", "the kernel's order");
});

Deno.test("a link-local address does not win by being fit sooner", () => {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  kernel.addAddress("eth0", "fe80::1/64");
  const criteria: InterfaceCriteria = { ...IPV4, families: [6], interfaces: ["eth0"] };
  assert.equal(outcome(select(kernel, criteria)), "eth0 fe80::1");
  kernel.addAddress("eth0", "2001:db8::1/64", { tentative: true });
  assert.equal(
    outcome(select(kernel, criteria)),
    "none: eth0 (it is --iface eth0): 2001:db8::1 is still tentative",
  );
});

for (const state of ["temporary", "deprecated", "tentative", "dadFailed"] as const) {
  Deno.test(`an address that is ${state} is never used`, () => {
    const kernel = new FakeKernel();
    kernel.addLink("eth0");
    kernel.addAddress("eth0", "2001:db8::1/64", { [state]: true });
    const word = state === "dadFailed" ? "a duplicate of another host's" : state;
    const criteria: InterfaceCriteria = { ...IPV4, families: [6] };
    assert.equal(
      outcome(select(kernel, { ...criteria, interfaces: ["eth0"] })),
      "none: eth0 (it is --iface eth0): it has no usable IPv6 address " +
        `(2001:db8::1 is ${word})`,
    );
    assert.equal(
      outcome(select(kernel, { ...criteria, interfaces: ["2001:db8::1"] })),
      `none: eth0 (it has --iface 2001:db8::1): 2001:db8::1 is ${word}`,
    );
    kernel.addAddress("eth0", "2001:db8::2/64");
    assert.equal(
      outcome(select(kernel, { ...criteria, interfaces: ["eth0"] })),
      "eth0 2001:db8::2",
    );
  });
}

Deno.test("--iface takes names and addresses in order, before all other ways", () => {
  const kernel = createHost();
  kernel.addRoute("0.0.0.0/0", { dev: "eth0" });
  const criteria = { ...IPV4, patterns: [/eth0/] };
  const by = (...interfaces: string[]) => select(kernel, { ...criteria, interfaces });
  assert.equal(outcome(by("eth1")), "eth1 198.51.100.10");
  assert.equal(outcome(by("198.51.100.10")), "eth1 198.51.100.10");
  const missed = by("eth9", "203.0.113.1", "eth1", "eth0");
  assert.equal(outcome(missed), "eth1 198.51.100.10");
  assert.deepEqual(missed.explain, [
    "eth9 (--iface): there is no such link; did you mean eth0?",
    "203.0.113.1 (--iface): no link has this address",
    "eth1: chosen, it is --iface eth1",
  ]);
  assert.equal(outcome(by("eth9")), "eth0 192.0.2.10", "then by --iface-regex");
  const only = { ...IPV4, interfaces: ["eth9"] };
  assert.equal(
    outcome(select(kernel, only)),
    "none: eth9 (--iface): there is no such link; did you mean eth0?",
    "never by the default route",
  );
});

Deno.test("a literal IPv4 --iface in dual stack may not contradict --public-ipv6", () => {
  const kernel = createHost();
  const criteria = { ...DUAL, interfaces: ["192.0.2.10"] };
  assert.equal(outcome(select(kernel, criteria)), "eth0 192.0.2.10 2001:db8::10");
  const other = { ...criteria, publicIpv6: Address.parse("2001:db8:1::10") };
  assert.equal(
    outcome(select(kernel, other)),
    "none: eth0 (it has --iface 192.0.2.10): " +
      "another link has --public-ipv6 2001:db8:1::10",
  );
});

Deno.test("--iface-regex looks at addresses in link order, then at names", async () => {
  const compile = await loadGoRegex();
  const kernel = createHost();
  const by = (criteria: InterfaceCriteria, ...texts: string[]) =>
    outcome(select(kernel, { ...criteria, patterns: texts.map(compile) }));
  assert.equal(by(IPV4, "^198\\.51\\."), "eth1 198.51.100.10");
  assert.equal(by(IPV4, "\\.10$"), "eth0 192.0.2.10");
  assert.equal(by(IPV4, "eth1"), "eth1 198.51.100.10");
  assert.equal(by(IPV4, "(?i)ETH1"), "eth1 198.51.100.10");
  assert.equal(by(IPV4, "^ens", "eth1"), "eth1 198.51.100.10");
  assert.equal(by(DUAL, "^(198|2001:db8:1:)"), "eth1 198.51.100.10 2001:db8:1::10");
  assert.equal(
    by(DUAL, "^198"),
    "none: ^198 (--iface-regex): no usable address and no name matches",
  );
  kernel.addAddress("eth0", "192.0.2.77/24");
  assert.equal(by(IPV4, "\\.77$"), "eth0 192.0.2.77", "the address that matched");
});

Deno.test("--iface-can-reach takes link and source of the kernel's route", () => {
  const kernel = createHost();
  const canReach = Address.parse("203.0.113.1");
  const criteria = { ...IPV4, canReach };
  assert.equal(
    outcome(select(kernel, criteria)),
    "none: 203.0.113.1 (--iface-can-reach): there is no route to it",
  );
  kernel.addAddress("eth1", "198.51.100.11/24");
  kernel.addRoute("203.0.113.0/24", { dev: "eth1", source: Address.parse("198.51.100.11") });
  const routeToCanReach = kernel.lookUp(canReach);
  assert.equal(outcome(select(kernel, criteria, { routeToCanReach })), "eth1 198.51.100.11");
  const own = Address.parse("192.0.2.10");
  assert.equal(
    outcome(select(kernel, { ...IPV4, canReach: own }, { routeToCanReach: kernel.lookUp(own) })),
    "none: 192.0.2.10 (--iface-can-reach): the route to it is of type local",
  );
});

Deno.test("--public-ip alone must be a local address; with --iface it is only advertised", () => {
  const kernel = createHost();
  kernel.addRoute("0.0.0.0/0", { dev: "eth0" });
  const local = { ...IPV4, publicIp: Address.parse("198.51.100.10") };
  assert.equal(outcome(select(kernel, local)), "eth1 198.51.100.10");
  const v6 = { ...DUAL, publicIpv6: Address.parse("2001:db8:1::10") };
  assert.equal(outcome(select(kernel, v6)), "eth1 198.51.100.10 2001:db8:1::10");
  const nat = { ...IPV4, publicIp: Address.parse("203.0.113.5") };
  assert.equal(
    outcome(select(kernel, nat)),
    "none: 203.0.113.5 (--public-ip): no link has this address; " +
      "if this host is behind NAT, name the interface with --iface as well",
  );
  const named = select(kernel, { ...nat, interfaces: ["eth0"] });
  assert.equal(outcome(named), "eth0 192.0.2.10");
  assert.equal(String(named.found?.publicIp), "203.0.113.5");
});

Deno.test("whatever is chosen is up and fit, and a refusal is explained", () => {
  const texts = ["192.0.2.1/24", "169.254.0.1/16", "127.0.0.9/8", "2001:db8::1/64", "fe80::1/64"];
  const addresses: fc.Arbitrary<LinkAddress> = fc.record({
    linkIndex: fc.integer({ min: 1, max: 3 }),
    address: fc.constantFrom(...texts).map((text) => InterfaceAddress.parse(text)),
    scope: fc.constant("universe" as const),
    permanent: fc.boolean(),
    temporary: fc.boolean(),
    secondary: fc.boolean(),
    deprecated: fc.boolean(),
    tentative: fc.boolean(),
    dadFailed: fc.boolean(),
  });
  const criteria = fc.record({
    families: fc.constantFrom([4] as const, [6] as const, [4, 6] as const),
    interfaces: fc.subarray(["l1", "l2", "192.0.2.1", "2001:db8::1", "l9"]),
    patterns: fc.subarray([/l3/, /^192/, /:/]),
  });
  fc.assert(fc.property(
    fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
    fc.array(addresses, { maxLength: 8 }),
    criteria,
    (ups, addresses, criteria) => {
      const links = ups.map((up, i) => ({
        index: i + 1,
        name: `l${i + 1}`,
        mtuBytes: 1500,
        up,
        running: up,
        loopback: false,
        withoutNeighbors: false,
      }));
      const { found, explain } = selectExternalInterface(criteria, {
        links,
        addresses,
        routes: [],
      });
      assert.ok(explain.length > 0);
      if (!found) return;
      assert.ok(links.find(({ index }) => index === found.linkIndex)?.up);
      const chosen = [found.address, found.addressV6].filter((each) => each !== undefined);
      assert.deepEqual(chosen.map(({ family }) => family), [...criteria.families]);
      for (const address of chosen) {
        assert.ok(
          addresses.some((each) =>
            each.linkIndex === found.linkIndex && each.address.address.equals(address) &&
            !address.isLoopback() && !each.temporary && !each.deprecated && !each.tentative &&
            !each.dadFailed
          ),
        );
      }
    },
  ));
});

Deno.test("waitForExternalInterface() waits until a default route comes", async () => {
  const kernel = createHost();
  await using netlink = kernel.open();
  const waits: (readonly string[])[] = [];
  const { signal } = new AbortController();
  const choice = await waitForExternalInterface(netlink, IPV4, {
    signal,
    timeoutMs: 60_000,
    onWaiting(explain) {
      waits.push(explain);
      // First something that changes nothing, then what is waited for.
      setTimeout(() => kernel.addRoute("10.0.0.0/8", { dev: "eth1" }), 0);
      setTimeout(() => kernel.addRoute("0.0.0.0/0", { dev: "eth1" }), 5);
    },
  });
  assert.equal(outcome(choice), "eth1 198.51.100.10");
  assert.deepEqual(waits, [["no IPv4 default route in table main"]], "told once");
});

Deno.test("waitForExternalInterface() gives up with the candidates named", async () => {
  const kernel = createHost();
  kernel.addLink("eth2");
  kernel.addRoute("0.0.0.0/0", { dev: "eth2" });
  await using netlink = kernel.open();
  const { signal } = new AbortController();
  for (const [timeoutMs, text] of [[0, ""], [20, " within 0.02 s"]] as const) {
    await assert.rejects(
      waitForExternalInterface(netlink, IPV4, { signal, timeoutMs }),
      (error) =>
        error instanceof OperatorError && error.message ===
          `Cannot find the external interface${text}: eth2 (it has the best default route, ` +
            `metric 0): it has no usable IPv4 address. Name it with --iface (eth0 has ` +
            `192.0.2.10, eth1 has 198.51.100.10), or give this host a default route`,
    );
  }
});

Deno.test("waitForExternalInterface() ends with the signal's reason", async () => {
  await using netlink = new FakeKernel().open();
  const controller = new AbortController();
  const reason = new Error("terminated");
  await assert.rejects(
    waitForExternalInterface(netlink, IPV4, {
      signal: controller.signal,
      timeoutMs: 60_000,
      onWaiting: () => setTimeout(() => controller.abort(reason), 0),
    }),
    reason,
  );
});

/** As the daemon reads them once it runs: without routes. */
function factsOf({ links, addresses }: FakeKernel): InterfaceFacts {
  return { links: [...links], addresses: [...addresses], routes: [] };
}

/** What becomes of the interface chosen by `criteria` once `change` has happened to the host. */
function refresh(
  criteria: InterfaceCriteria,
  kernel: FakeKernel,
  change: (kernel: FakeKernel) => void,
): string {
  const { found } = select(kernel, criteria);
  assert.ok(found);
  const before = factsOf(kernel);
  change(kernel);
  const now = refreshExternalInterface(found, criteria, factsOf(kernel), before);
  if (now) assert.equal(now.reason, found.reason);
  return now ? `${outcome({ found: now, explain: [] })} mtu ${now.mtuBytes}` : "as before";
}

function removeAddress(kernel: FakeKernel, text: string): void {
  const at = kernel.addresses.findIndex(({ address }) => String(address.address) === text);
  kernel.addresses.splice(at, 1);
}

Deno.test("the addresses of the external interface stay as long as they are fit", () => {
  const named = { ...IPV4, interfaces: ["192.0.2.77"] };
  const withSecond = () => {
    const kernel = createHost();
    kernel.addAddress("eth0", "192.0.2.77/24");
    return kernel;
  };
  const addThird = (kernel: FakeKernel) => void kernel.addAddress("eth0", "192.0.2.3/24");
  assert.equal(refresh(named, withSecond(), addThird), "eth0 192.0.2.77 mtu 1500");
  const pattern = { ...IPV4, patterns: [/\.77$/] };
  assert.equal(refresh(pattern, withSecond(), addThird), "eth0 192.0.2.77 mtu 1500");

  const byRoute = withSecond();
  const source = Address.parse("192.0.2.77");
  byRoute.addRoute("0.0.0.0/0", { dev: "eth0", source, ...gateway("192.0.2.1") });
  const dropRoutes = (kernel: FakeKernel) => void kernel.routes.splice(0);
  assert.equal(refresh(IPV4, byRoute, dropRoutes), "eth0 192.0.2.77 mtu 1500");

  const byName = { ...DUAL, interfaces: ["eth1"] };
  assert.equal(
    refresh(byName, createHost(), (kernel) => {
      removeAddress(kernel, "198.51.100.10");
      kernel.addAddress("eth1", "198.51.100.20/24");
    }),
    "eth1 198.51.100.20 2001:db8:1::10 mtu 9000",
  );
  assert.equal(
    refresh(named, withSecond(), (kernel) => removeAddress(kernel, "192.0.2.77")),
    "as before",
    "nothing stands in for an address that was named",
  );
  assert.equal(
    refresh(byName, createHost(), (kernel) => removeAddress(kernel, "198.51.100.10")),
    "as before",
  );
});

Deno.test("a link-local address stands in for no global one of the external interface", () => {
  const byName = { ...DUAL, interfaces: ["eth0"] };
  assert.equal(
    refresh(byName, createHost(), (kernel) => removeAddress(kernel, "2001:db8::10")),
    "as before",
  );
  assert.equal(
    refresh({ ...IPV4, interfaces: ["eth0"] }, createHost(), (kernel) => {
      removeAddress(kernel, "192.0.2.10");
      kernel.addAddress("eth0", "169.254.1.1/16");
    }),
    "as before",
  );
  assert.equal(
    refresh(byName, createHost(), (kernel) => {
      removeAddress(kernel, "2001:db8::10");
      kernel.addAddress("eth0", "2001:db8:0::20/64");
    }),
    "eth0 192.0.2.10 2001:db8::20 mtu 1500",
  );

  // One that was all there was at the start is followed like any other.
  const onlyLinkLocal = createHost();
  removeAddress(onlyLinkLocal, "2001:db8::10");
  assert.equal(
    refresh(byName, onlyLinkLocal, (kernel) => {
      removeAddress(kernel, "fe80::10");
      kernel.addAddress("eth0", "fe80::20/64");
    }),
    "eth0 192.0.2.10 fe80::20 mtu 1500",
  );
});

/** A host with an address from DHCP and a virtual IP, added in this order. */
function createVirtualHost(
  addresses: readonly string[],
  { source }: { readonly source?: string } = {},
): FakeKernel {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  for (const text of addresses) {
    const [address, state] = text.split(" ");
    kernel.addAddress("eth0", address!, {
      ...(state === "dhcp" ? { permanent: false } : {}),
      ...(state === "link" ? { scope: "link" } : {}),
    });
  }
  kernel.addRoute("0.0.0.0/0", {
    dev: "eth0",
    ...gateway("192.0.2.1"),
    ...(source ? { source: Address.parse(source) } : {}),
  });
  return kernel;
}

for (
  const [title, addresses, own, source] of [
    ["DHCP, VIP /32", ["192.0.2.9/24 dhcp", "192.0.2.100/32"], "192.0.2.9"],
    ["VIP /32, DHCP", ["192.0.2.100/32", "192.0.2.9/24 dhcp"], "192.0.2.9"],
    ["DHCP, VIP /24", ["192.0.2.9/24 dhcp", "192.0.2.100/24"], "192.0.2.9"],
    ["VIP /24, DHCP", ["192.0.2.100/24", "192.0.2.9/24 dhcp"], "192.0.2.9"],
    ["VIP /16, DHCP", ["192.0.2.100/16", "192.0.2.9/24 dhcp"], "192.0.2.9"],
    ["DHCP, VIP /25", ["192.0.2.9/24 dhcp", "192.0.2.100/25"], "192.0.2.9"],
    ["static, VIP /24", ["192.0.2.9/24", "192.0.2.100/24"], "192.0.2.9"],
    ["static, VIP /32 of another range", ["203.0.113.9/32", "192.0.2.9/24"], "192.0.2.9"],
    ["VIP of another subnet first", ["10.9.0.5/24", "192.0.2.9/24 dhcp"], "192.0.2.9"],
    ["VIP of another subnet", ["192.0.2.9/24 dhcp", "10.9.0.5/16"], "192.0.2.9"],
    ["VIP /24 first, source named", ["192.0.2.100/24", "192.0.2.9/24"], "192.0.2.9", "192.0.2.9"],
    ["a secondary named as source", ["192.0.2.9/24", "192.0.2.10/24"], "192.0.2.10", "192.0.2.10"],
    ["a cloud's /32, VIP /32", ["192.0.2.100/32", "192.0.2.9/32 dhcp"], "192.0.2.9"],
    ["scope link", ["192.0.2.100/24 link", "192.0.2.9/24"], "192.0.2.9"],
  ] as [string, string[], string, string?][]
) {
  Deno.test(`the host's own address is published, not a virtual IP: ${title}`, () => {
    const kernel = createVirtualHost(addresses, source ? { source } : {});
    const canReach = Address.parse("198.51.100.1");
    const ways: InterfaceCriteria[] = [
      IPV4,
      { ...IPV4, interfaces: ["eth0"] },
      { ...IPV4, patterns: [/^eth/] },
      { ...IPV4, patterns: [/^(192|203|10)\./] },
    ];
    for (const criteria of ways) {
      assert.equal(outcome(select(kernel, criteria)), `eth0 ${own}`, JSON.stringify(criteria));
    }
    // The kernel's choice may be the address that was there first.
    const route = kernel.lookUp(canReach);
    for (const sent of kernel.addresses.filter(({ linkIndex }) => linkIndex === route.linkIndex)) {
      if (sent.secondary || sent.address.prefix.length === 32) continue;
      const choice = select(kernel, { ...IPV4, canReach }, {
        routeToCanReach: {
          ...route,
          source: source ? Address.parse(source) : sent.address.address,
        },
      });
      if (!title.includes("another subnet")) assert.equal(outcome(choice), `eth0 ${own}`);
    }
    const literal = addresses[0]!.split("/")[0]!;
    assert.equal(
      outcome(select(kernel, { ...IPV4, interfaces: [literal] })),
      `eth0 ${literal}`,
      "one that was named is meant",
    );
  });
}

Deno.test("of addresses that match --iface-regex, those on links for virtual IPs come last", () => {
  const kernel = createVirtualHost(["192.0.2.9/24 dhcp"]);
  kernel.addAddress("lo", "192.0.2.100/32");
  const criteria = { ...IPV4, patterns: [/^192\.0\.2\./] };
  assert.equal(outcome(select(kernel, criteria)), "eth0 192.0.2.9");
  assert.equal(outcome(select(kernel, { ...IPV4, patterns: [/\.100$/] })), "lo 192.0.2.100");
});

Deno.test("a virtual IP that comes, stays or goes does not change what is published", () => {
  for (const length of [24, 32]) {
    const add = (kernel: FakeKernel) => void kernel.addAddress("eth0", `192.0.2.100/${length}`);
    const host = () => createVirtualHost(["192.0.2.9/24 dhcp"]);
    assert.equal(refresh(IPV4, host(), add), "eth0 192.0.2.9 mtu 1500");
    const both = host();
    add(both);
    const fail = (kernel: FakeKernel) => removeAddress(kernel, "192.0.2.100");
    assert.equal(refresh(IPV4, both, fail), "eth0 192.0.2.9 mtu 1500");

    // DHCP gives another address; the VIP is alone in between.
    const changing = host();
    add(changing);
    const criteria = IPV4;
    const { found } = select(changing, criteria);
    const before = factsOf(changing);
    removeAddress(changing, "192.0.2.9");
    const alone = refreshExternalInterface(found!, criteria, factsOf(changing), before);
    if (length === 32) assert.equal(alone, undefined, "never taken");
    else assert.deepEqual([String(alone?.publicIp), alone?.standIn], ["192.0.2.100", true]);
    const lonely = factsOf(changing);
    changing.addAddress("eth0", "192.0.2.10/24", { permanent: false });
    const next = refreshExternalInterface(found!, criteria, factsOf(changing), before);
    assert.deepEqual([String(next?.publicIp), next?.standIn], ["192.0.2.10", undefined]);
    if (!alone) continue;
    // Nor does it stay once it was taken.
    const back = refreshExternalInterface(alone, criteria, factsOf(changing), lonely);
    assert.deepEqual([String(back?.publicIp), back?.standIn], ["192.0.2.10", undefined]);
  }
});

Deno.test("a stand-in stays one until an address of the former kind is back", () => {
  const kernel = createVirtualHost(["192.0.2.9/24 dhcp", "192.0.2.100/24"]);
  const { found } = select(kernel, IPV4);
  const before = factsOf(kernel);
  removeAddress(kernel, "192.0.2.9");
  const alone = refreshExternalInterface(found!, IPV4, factsOf(kernel), before)!;
  const still = refreshExternalInterface(alone, IPV4, factsOf(kernel), factsOf(kernel));
  assert.deepEqual([String(still?.publicIp), still?.standIn], ["192.0.2.100", true]);
});
