import assert from "node:assert/strict";
import fc from "fast-check";
import { type NetworkConfig, parseNetworkConfig } from "../../config/network_config.ts";
import { fitsConfig } from "../../lease/allocate.ts";
import { encodeLeaseKey, encodeLeaseValue, parseLeaseKey } from "../../lease/codec.ts";
import type { LeaseSubnet } from "../../lease/lease.ts";
import { Address, Places, Prefix } from "../../net/mod.ts";
import { isOwnedBy } from "../../lease/ownership.ts";
import { type AcquireStep, planAcquire } from "./plan_acquire.ts";
import type { Entry } from "../keys/key_space.ts";

const V4 = { Network: "10.24.0.0/16" };
const V6 = { EnableIPv6: true, IPv6Network: "fd00:24::/56" };
const ME = { publicIp: Address.parse("192.0.2.1"), publicIpv6: Address.parse("2001:db8::1") };

function config(json: Record<string, unknown>): NetworkConfig {
  return parseNetworkConfig(JSON.stringify({ ...json, Backend: { Type: "vxlan" } })).config;
}

let revision = 100;
function entry(key: string, host = 1, more: Partial<Entry> = {}): Entry {
  const value = encodeLeaseValue({
    publicIp: Address.parse(`192.0.2.${host}`),
    publicIpv6: Address.parse(`2001:db8::${host}`),
    backendType: "vxlan",
  });
  const text = String(++revision);
  return { key, value, version: text, order: text, expires: true, ...more };
}

function plan(
  json: Record<string, unknown>,
  entries: readonly Entry[],
  { previous, addresses, occupied, random = () => 0, owner = ME }: {
    previous?: string;
    addresses?: readonly Address[];
    occupied?: Places;
    random?: () => number;
    owner?: Parameters<typeof isOwnedBy>[1];
  } = {},
): AcquireStep {
  return planAcquire({
    network: config(json),
    owner,
    entries,
    previous: previous === undefined ? undefined : parseLeaseKey(previous),
    ...(addresses ? { addresses } : {}),
    ...(occupied ? { occupied } : {}),
    random,
  });
}

function text(step: AcquireStep): string {
  switch (step.action) {
    case "move":
      return `move ${step.entry.key} to ${encodeLeaseKey(step.subnet)}`;
    case "create":
      return `create ${encodeLeaseKey(step.subnet)}`;
    case "wait":
      return step.reason;
    default:
      return `${step.action} ${step.entry.key}`;
  }
}

function places(...prefixes: string[]): Places {
  return new Places(
    prefixes.map((prefix) => ({ prefix: Prefix.parse(prefix), what: `${prefix} of eth1` })),
  );
}

Deno.test("a family that is switched on is added to the subnet that stays", () => {
  const both = { ...V4, ...V6 };
  const step = plan(both, [entry("10.24.5.0-24"), entry("10.24.6.0-24&fd00:24:0:6::-64", 2)]);
  // The same number in both ranges, as of a new lease.
  assert.equal(text(step), "move 10.24.5.0-24 to 10.24.5.0-24&fd00:24:0:5::-64");
  const taken = plan(both, [
    entry("10.24.5.0-24"),
    entry("10.24.6.0-24&fd00:24:0:5::-64", 2),
  ]);
  assert.equal(text(taken), "move 10.24.5.0-24 to 10.24.5.0-24&fd00:24:0:1::-64");
  const old = { EnableIPv4: false, ...V6 };
  const ipv6 = entry("0.0.0.0-0&fd00:24:0:7::-64", 1, {
    value: encodeLeaseValue({ publicIpv6: ME.publicIpv6, backendType: "vxlan" }),
  });
  assert.equal(
    text(plan(both, [ipv6])),
    "move 0.0.0.0-0&fd00:24:0:7::-64 to 10.24.7.0-24&fd00:24:0:7::-64",
  );
  assert.equal(text(plan(old, [ipv6])), "reuse 0.0.0.0-0&fd00:24:0:7::-64");
});

Deno.test("a family that is switched off leaves the other's subnet", () => {
  const dual = entry("10.24.5.0-24&fd00:24:0:9::-64");
  assert.equal(text(plan(V4, [dual])), "move 10.24.5.0-24&fd00:24:0:9::-64 to 10.24.5.0-24");
  const { publicIpv6 } = ME;
  assert.equal(
    text(plan({ EnableIPv4: false, ...V6 }, [dual], { owner: { publicIpv6 } })),
    "move 10.24.5.0-24&fd00:24:0:9::-64 to 0.0.0.0-0&fd00:24:0:9::-64",
  );
});

Deno.test("what a changed range leaves of a lease stays", () => {
  const dual = [entry("10.24.5.0-24&fd00:24:0:5::-64")];
  const key = "10.24.5.0-24&fd00:24:0:5::-64";
  assert.equal(text(plan({ Network: "10.24.0.0/14", ...V6 }, dual)), `reuse ${key}`);
  const other6 = { ...V4, EnableIPv6: true, IPv6Network: "fd00:25::/56" };
  assert.equal(text(plan(other6, dual)), `move ${key} to 10.24.5.0-24&fd00:25:0:5::-64`);
  const longer = { ...V4, SubnetLen: 26, ...V6 };
  assert.equal(text(plan(longer, dual)), `move ${key} to 10.24.1.64-26&fd00:24:0:5::-64`);
  assert.equal(
    text(plan({ ...V4, SubnetLen: 26 }, [entry("10.24.5.0-24")])),
    "remove 10.24.5.0-24",
  );
});

Deno.test("a reservation stays one when it is moved, and is left alone where nothing of it fits", () => {
  const reserved = entry("10.24.5.0-24", 1, { expires: false });
  const step = plan({ ...V4, ...V6 }, [reserved]);
  assert.equal(text(step), "move 10.24.5.0-24 to 10.24.5.0-24&fd00:24:0:5::-64");
  assert.equal(
    text(plan({ Network: "10.30.0.0/16" }, [reserved])),
    "create 10.30.1.0-24",
  );
});

Deno.test("a lease that ended is taken up again with a family more", () => {
  const both = { ...V4, ...V6 };
  const step = plan(both, [], { previous: "10.24.5.0-24" });
  assert.equal(text(step), "create 10.24.5.0-24&fd00:24:0:5::-64");
  const taken = plan(both, [entry("10.24.5.0-24", 2)], { previous: "10.24.5.0-24" });
  assert.equal(text(taken), "create 10.24.1.0-24&fd00:24:0:1::-64");
});

Deno.test("a rival for the added subnet costs that one alone", () => {
  const rival = entry("10.24.9.0-24&fd00:24:0:5::-64", 2);
  const mine = entry("10.24.5.0-24&fd00:24:0:5::-64");
  const step = plan({ ...V4, ...V6 }, [rival, mine], { previous: "10.24.5.0-24" });
  assert.equal(text(step), `move ${mine.key} to 10.24.5.0-24&fd00:24:0:1::-64`);
  assert.equal(text(plan({ ...V4, ...V6 }, [rival, mine])), `remove ${mine.key}`, "nothing served");
});

Deno.test("what a move that was interrupted has left goes", () => {
  const [old, moved] = [entry("10.24.5.0-24"), entry("10.24.5.0-24&fd00:24:0:5::-64")];
  const both = { ...V4, ...V6 };
  assert.equal(text(plan(both, [old, moved], { previous: old.key })), `remove ${old.key}`);
  assert.equal(text(plan(both, [moved], { previous: old.key })), `reuse ${moved.key}`);
});

Deno.test("no subnet is drawn that covers a place in use, or another host", () => {
  const network = { Network: "10.0.0.0/8", SubnetLen: 20 };
  const step = plan(network, [], { occupied: places("10.0.16.0/24", "10.0.35.7/32") });
  assert.equal(text(step), "create 10.0.48.0-20");
  const host = encodeLeaseValue({ publicIp: Address.parse("10.0.17.3"), backendType: "vxlan" });
  const hosts = plan(network, [entry("10.0.64.0-20", 2, { value: host })]);
  assert.equal(text(hosts), "create 10.0.32.0-20");
  const owner = { publicIp: Address.parse("10.240.0.3") };
  const example = { ...network, SubnetMin: "10.10.0.0", SubnetMax: "10.99.0.0" };
  assert.equal(text(plan(example, [], { owner })), "create 10.10.0.0-20");
});

Deno.test("what is served stays, whatever it covers", () => {
  const occupied = places("10.24.5.128/25");
  assert.equal(text(plan(V4, [entry("10.24.5.0-24")], { occupied })), "reuse 10.24.5.0-24");
  assert.equal(text(plan(V4, [], { occupied, previous: "10.24.5.0-24" })), "create 10.24.5.0-24");
});

Deno.test("the served subnet stays where another of the host's addresses was published", () => {
  const entries = [entry("10.24.5.0-24", 100), entry("10.24.6.0-24", 7)];
  const addresses = [ME.publicIp, Address.parse("192.0.2.100")];
  const previous = "10.24.5.0-24";
  assert.equal(text(plan(V4, entries, { previous, addresses })), "reuse 10.24.5.0-24");
  // Not a lease that some other host may serve: it is not the subnet of before,
  assert.equal(text(plan(V4, entries, { addresses })), "create 10.24.1.0-24");
  // or its address is not here (any more).
  const elsewhere = { previous, addresses: [ME.publicIp] };
  assert.equal(text(plan(V4, entries, elsewhere)), "create 10.24.1.0-24");
  assert.equal(text(plan(V4, entries, { previous })), "create 10.24.1.0-24");
});

Deno.test("a subnet that this host has addresses of goes before a lease that a backup brought back", () => {
  const previous = "10.24.5.0-24";
  const local = (...texts: string[]) => ({
    previous,
    addresses: [ME.publicIp, ...texts.map((each) => Address.parse(each))],
  });
  const old = entry("10.24.6.0-24");
  const inUse = local("10.24.5.1");
  assert.equal(text(plan(V4, [old], inUse)), "create 10.24.5.0-24");
  assert.equal(text(plan(V4, [old], local())), "reuse 10.24.6.0-24", "upstream's order");
  assert.equal(text(plan(V4, [old], local("10.24.5.1", "10.24.6.1"))), "reuse 10.24.6.0-24");
  const theirs = entry("10.24.5.0-24", 2);
  assert.equal(text(plan(V4, [old, theirs], inUse)), "reuse 10.24.6.0-24", "it is taken");
  const word = entry("10.24.6.0-24", 1, { expires: false });
  assert.equal(text(plan(V4, [word], inUse)), "reuse 10.24.6.0-24", "the operator's word");
  assert.equal(text(plan(V4, [old, entry(previous)], inUse)), "reuse 10.24.5.0-24");
  const other = { Network: "10.24.0.0/16", SubnetLen: 25 };
  assert.equal(text(plan(other, [entry("10.24.6.0-25")], inUse)), "reuse 10.24.6.0-25");
});

Deno.test("a range without a usable subnet is named, with what is in the way", () => {
  const network = { ...V4, SubnetMin: "10.24.4.0", SubnetMax: "10.24.7.0" };
  // Those outside the range, or where a lease is anyway, are not what is in the way.
  const elsewhere = ["192.168.0.0/16", "10.24.3.0/24", "10.24.8.1/32", "10.24.4.9/32"];
  const occupied = places(...elsewhere, "10.24.6.0/23", "10.24.5.1/32");
  const step = plan(network, [entry("10.24.4.0-24", 2)], { occupied });
  assert.equal(
    text(step),
    "Cannot lease a subnet: 1 of 4 subnets of 10.24.0.0/16 are leased, and 3 cannot be used here " +
      "because of 10.24.6.0/23 of eth1, 10.24.5.1/32 of eth1; enlarge the network, or remove the " +
      "leases of hosts that are gone, or set SubnetMin and SubnetMax apart from the rest",
  );
});

Deno.test("isOwnedBy() goes by IPv4, and by IPv6 where either has nothing else", () => {
  const [a, b] = [ME.publicIp, Address.parse("192.0.2.2")];
  const { publicIpv6 } = ME;
  const backendType = "";
  assert.ok(isOwnedBy({ publicIp: a, backendType }, ME));
  assert.ok(!isOwnedBy({ publicIp: b, publicIpv6, backendType }, ME), "IPv4 decides");
  assert.ok(isOwnedBy({ publicIpv6, backendType }, ME), "from before IPv4 was switched on");
  assert.ok(isOwnedBy({ publicIp: a, publicIpv6, backendType }, { publicIpv6 }), "and off");
  assert.ok(!isOwnedBy({ backendType }, ME));
});

Deno.test("however config and leases change, planAcquire() gives back no subnet that fits", () => {
  const families = fc.constantFrom("v4", "v6", "dual");
  const json = fc.record({ families, ipv4Length: fc.constantFrom(24, 25) }).map(
    ({ families, ipv4Length }) => ({
      ...(families === "v6" ? { EnableIPv4: false } : { ...V4, SubnetLen: ipv4Length }),
      ...(families === "v4" ? {} : V6),
    }),
  );
  const number = fc.integer({ min: 1, max: 6 });
  const subnet = fc.record({ families, v4: number, v6: number }).map(({ families, v4, v6 }) =>
    encodeLeaseKey({
      ...(families === "v6" ? {} : { ipv4: Prefix.parse(`10.24.${v4}.0/24`) }),
      ...(families === "v4" ? {} : { ipv6: Prefix.parse(`fd00:24:0:${v6}::/64`) }),
    })
  );
  const leases = fc.array(fc.tuple(subnet, fc.integer({ min: 2, max: 4 })), { maxLength: 4 });
  const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(fc.property(json, subnet, leases, random, (json, mine, others, at) => {
    const overlaps = (a: LeaseSubnet, b: LeaseSubnet) =>
      (["ipv4", "ipv6"] as const).some((name) => a[name] && b[name]?.overlaps(a[name]));
    const own = entry(mine);
    const rest = others.map(([key, host]) => entry(key, host))
      .filter(({ key }) => !overlaps(parseLeaseKey(key), parseLeaseKey(mine)));
    const network = config(json);
    const before = parseLeaseKey(mine);
    const step = plan(json, [own, ...rest], { random: () => at });
    if (step.action === "reuse") return assert.ok(fitsConfig(network, before));
    const fits = (["ipv4", "ipv6"] as const).filter((name) =>
      network[name] && before[name] && before[name].length === network[name].subnetLength
    );
    assert.equal(step.action, fits.length > 0 ? "move" : "remove");
    if (step.action !== "move") return;
    for (const name of fits) assert.ok(step.subnet[name]?.equals(before[name]!));
    assert.ok(fitsConfig(network, step.subnet));
    for (const { key } of rest) assert.ok(!overlaps(parseLeaseKey(key), step.subnet), key);
  }));
});
