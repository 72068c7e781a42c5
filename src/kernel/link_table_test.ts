import assert from "node:assert/strict";
import { FakeKernel } from "../../tests/fakes/fake_netlink.ts";
import { OperatorError } from "../errors.ts";
import { Address } from "../net/mod.ts";
import type { LinkSpec } from "../state/mod.ts";
import { createLinkTable } from "./link_table.ts";
import { vxlanLink } from "../../tests/support/links.ts";

const { signal } = new AbortController();

const specs: LinkSpec[] = [
  vxlanLink("192.0.2.1"),
  {
    name: "flannel.ipip",
    kind: "ipip",
    mtuBytes: 1480,
    ipip: { local: Address.parse("192.0.2.1") },
  },
];

Deno.test("link Table names the missing module and its package", async () => {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  await using netlink = kernel.open();
  const table = createLinkTable(netlink, { ownsLink: (name) => name.startsWith("flannel") });
  for (const desired of specs) {
    kernel.missingKinds.add(desired.kind);
    const [failed] = await table.apply([{ op: "add", desired }], { signal });
    assert.ok(failed?.error instanceof OperatorError);
    assert.match(failed.error.message, new RegExp(`${desired.name}.*modprobe ${desired.kind}`));
    assert.match(failed.error.message, /linux-modules-extra.*kernel-modules-extra/);
  }
});

Deno.test("link Table makes anew what this kernel cannot change in place", async () => {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  await using netlink = kernel.open();
  const table = createLinkTable(netlink, {
    ownsLink: (name) => name.startsWith("flannel"),
    alias: "flanneld /run/a.env",
  });
  const [desired] = specs;
  assert.deepEqual(await table.apply([{ op: "add", desired: desired! }], { signal }), []);
  kernel.refuse = ({ verb, noun, value }) =>
    verb === "set" && noun === "link" && value.vxlan ? "EOPNOTSUPP" : undefined;
  const moved: LinkSpec = {
    ...desired!,
    vxlan: { ...desired!.vxlan!, local: Address.parse("192.0.2.2") },
  };
  const [actual] = (await table.list({ signal })).filter(({ name }) => name === "flannel.1");
  const change = { op: "replace", desired: moved, actual: actual! } as const;
  assert.deepEqual(await table.apply([change], { signal }), []);
  const [now] = kernel.links.filter(({ name }) => name === "flannel.1");
  assert.equal(String(now?.vxlan?.local), "192.0.2.2");
  assert.equal(now?.alias, "flanneld /run/a.env", "and marks it");
});
