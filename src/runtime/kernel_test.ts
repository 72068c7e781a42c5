import assert from "node:assert/strict";
import { parseNetworkConfig } from "../config/network_config.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import { decideChecksumOffload } from "./kernel.ts";
import { findBackend } from "./mod.ts";
import type { RuntimeContext } from "./runtime.ts";
import { recordLog } from "../../tests/support/log.ts";

const { signal } = new AbortController();

Deno.test("decideChecksumOffload() turns it off only where the kernel spoils checksums", () => {
  for (
    const [release, expected] of [
      ["4.19.0-27-amd64", false],
      ["5.4.0-1", false],
      ["5.6.19", false],
      ["5.7.0-rc1", undefined],
      ["5.10.0-35-cloud-amd64", undefined],
      ["6.1.0", undefined],
      ["10.0.1", undefined],
      ["", undefined],
      ["mine", undefined],
    ] as const
  ) {
    assert.equal(decideChecksumOffload("auto", release), expected, release);
    assert.equal(decideChecksumOffload("on", release), true);
    assert.equal(decideChecksumOffload("off", release), false);
  }
});

Deno.test("A vxlan host gives way in MAC to a peer whose lease comes before its own, and to no other", async () => {
  const { lines, log } = recordLog();
  await using runtime = await findBackend("vxlan").configure({}).backend.open({
    network: parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}').config,
    hostNetwork: {
      netlink: { listLinks: () => Promise.resolve([]) },
      underlay: { isStale: false },
    },
    log,
    signal,
  } as unknown as RuntimeContext);
  const host = { link: "eth0", mtuBytes: 1500, publicIp: Address.parse("192.0.2.5") };
  const published = () => runtime.announce(host).backendData;
  const lease = (n: number, backendData: Json, address = n): Lease => ({
    key: `10.5.${n}.0-24`,
    subnet: { ipv4: Prefix.parse(`10.5.${n}.0/24`) },
    attributes: {
      publicIp: Address.parse(`192.0.2.${address}`),
      backendType: "vxlan",
      backendData,
    },
  });
  const first = published()!;
  const own = lease(5, first);
  const others = Array.from({ length: 600 }, (_, n) => lease(100 + n % 100, { VtepMAC: "junk" }));
  const follow = async (list: readonly Lease[]) => {
    const { value: before } = runtime.facts;
    const peers = {
      size: list.length,
      get: (key: string) => list.find((each) => each.key === key),
      [Symbol.iterator]: () => list.values(),
    };
    await runtime.gather!(own, peers, "all", { signal });
    await runtime.gather!(own, peers, new Set(), { signal });
    return runtime.facts.value !== before;
  };

  assert.equal(await follow([...others, lease(6, first)]), false);
  assert.deepEqual([published(), lines], [first, []], "the later lease gives way");
  assert.equal(await follow([...others, lease(4, first, 5)]), false);
  assert.deepEqual([published(), lines], [first, []], "it is this host's own, of before");
  const peers = [...others, lease(4, first)];
  assert.equal(await follow(peers), true);
  assert.notDeepEqual(published(), first);
  assert.match(lines.join(), /also that of 10\.5\.4\.0-24; taking /);
  assert.equal(await follow(peers), false, "nothing of the peers is new");
});
