import assert from "node:assert/strict";
import { createLinkTable } from "../../../src/kernel/link_table.ts";
import { openNetlink } from "../../../src/kernel/netlink/rtnetlink.ts";
import { Address } from "../../../src/net/mod.ts";
import type { LinkSpec } from "../../../src/state/mod.ts";
import { ipipContract } from "../../kernel/ipip_contract.ts";
import { createTestNamespace } from "../../kernel/namespace.ts";

ipipContract("Netlink", async () => {
  const namespace = await createTestNamespace();
  return {
    open: () => openNetlink({ namespace: namespace.path }),
    [Symbol.asyncDispose]: () => namespace[Symbol.asyncDispose](),
  };
});

const SPEC: LinkSpec = {
  name: "flannel.ipip",
  kind: "ipip",
  mtuBytes: 1480,
  ipip: { local: Address.parse("192.0.2.1") },
};

Deno.test("iproute2 sees the ipip tunnel as meant, and what others make of it is undone", async () => {
  const { signal } = new AbortController();
  await using namespace = await createTestNamespace();
  await using netlink = openNetlink({ namespace: namespace.path });
  const table = createLinkTable(netlink, { ownsLink: (name) => name === SPEC.name });
  const ip = (words: string) => namespace.run("ip", ...words.split(" "));
  const shown = async () => {
    const [link] = JSON.parse(await ip("-d -j link show flannel.ipip"));
    const { info_kind: kind, info_data: { local, remote, ttl, pmtudisc, fwmark } } = link.linkinfo;
    return {
      up: link.flags.includes("UP"),
      mtu: link.mtu,
      kind,
      local,
      remote,
      ttl,
      pmtudisc,
      fwmark,
    };
  };
  const settle = async () => {
    const actual = (await table.list({ signal })).find(({ name }) => name === SPEC.name);
    if (actual && table.kind.equal(SPEC, actual)) return false;
    const change = actual
      ? { op: "replace" as const, desired: SPEC, actual }
      : { op: "add" as const, desired: SPEC };
    assert.deepEqual((await table.apply([change], { signal })).map(({ error }) => error), []);
    return true;
  };

  assert.equal(await settle(), true);
  const meant = await shown();
  assert.deepEqual(
    { ...meant, remote: meant.remote ?? "any" },
    {
      ...{ up: true, mtu: 1480, kind: "ipip", local: "192.0.2.1", remote: "any" },
      // Those inherit what the packet inside has.
      ...{ ttl: 0, pmtudisc: false, fwmark: undefined },
    },
  );
  for (
    const commands of [
      ["link set flannel.ipip mtu 1300"],
      ["link set flannel.ipip down"],
      ["tunnel change flannel.ipip mode ipip local 192.0.2.9"],
      [
        "link delete flannel.ipip",
        "link add flannel.ipip type ipip local 192.0.2.1 remote 192.0.2.9",
      ],
      ["link delete flannel.ipip", "link add flannel.ipip type dummy"],
    ]
  ) {
    for (const words of commands) await ip(words);
    const title = commands.join(", ");
    assert.equal(await settle(), true, `${title}: seen`);
    assert.deepEqual(await shown(), meant, title);
    assert.equal(await settle(), false, `${title}: settled`);
  }
});
