import assert from "node:assert/strict";
import { FakeKernel } from "../../tests/fakes/fake_netlink.ts";
import { parseNetworkConfig } from "../config/network_config.ts";
import { Prefix } from "../net/mod.ts";
import { delay } from "../util/time.ts";
import { ReservedSpace } from "./reserved_space.ts";
import { SILENT } from "../../tests/support/log.ts";

Deno.test("ReservedSpace counts a foreign route that stays, not one that is put right at once", async () => {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  kernel.addAddress("eth0", "192.0.2.10/24");
  const end = new AbortController();
  const { signal } = end;
  await using netlink = kernel.open();
  const { config: network } = parseNetworkConfig('{"Network":"10.24.0.0/16"}', {
    readBackend: () => [],
  });
  const space = new ReservedSpace({
    netlink,
    network,
    options: { etcdEndpoints: [] },
    services: [],
    facts: {
      links: await netlink.listLinks({ signal }),
      addresses: await netlink.listAddresses({ signal }),
      routes: [],
    },
    externalLink: "eth0",
    alias: "flanneld",
    own: undefined,
    log: SILENT,
  });
  await space.look({ signal }); // as at the start
  const running = space.run({ signal }).catch(() => {});
  const subnet = Prefix.parse("10.24.31.0/24");
  const find = () => space.needs.value.needs.find(subnet)?.what;
  const tell = () =>
    space.observe({ kind: "route", removed: false, protocol: 3, destination: subnet });
  let told = 0;
  using _told = space.needs.subscribe(() => void told++);

  const before = kernel.routes.length;
  kernel.addRoute("10.24.31.0/24", { type: "blackhole", protocol: 3 });
  tell();
  await delay(800, { signal }); // it was seen by now
  kernel.routes.splice(before);
  await delay(2_000, { signal });
  assert.equal(find(), undefined);
  assert.equal(told, 0);

  kernel.addRoute("10.24.31.0/24", { type: "blackhole", protocol: 3 });
  tell();
  for (let i = 0; i < 100 && find() === undefined; i++) await delay(50, { signal });
  assert.equal(find(), "the route to 10.24.31.0/24");
  end.abort();
  await running;
});
