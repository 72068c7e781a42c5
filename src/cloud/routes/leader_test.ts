import assert from "node:assert/strict";
import { MemoryRegistry } from "../../../tests/fakes/memory_registry.ts";
import { aliVpc } from "../../backends/mod.ts";
import type { AliVpcAccess } from "../ali/access.ts";
import type { AliVpcIdentity } from "../ali/identify.ts";
import { Claims, type CloudRoute, routeEntryKind } from "./route_entry.ts";
import type { RouteTable, RouteTableScope } from "./route_table.ts";
import { Silence } from "./silence.ts";
import { encodeLeaseValue } from "../../lease/codec.ts";
import type { Lease } from "../../lease/lease.ts";
import { LeaseMap } from "../../lease/lease_map.ts";
import type { Logger } from "../../log.ts";
import { Address, Prefix } from "../../net/mod.ts";
import type { Election, Term } from "../../store/etcd/election.ts";
import { StoreError } from "../../store/errors.ts";
import { ClusterWriter } from "./leader.ts";

const NETWORK = Prefix.parse("10.24.0.0/16");
const VPC_ID = "vpc-1";

const quiet: Logger = {
  trace: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => quiet,
};

const config = aliVpc.parseConfig({ Type: "ali-vpc", SourceDestCheck: "ignore" }).config;

function lease(n: number, instanceId: string, revision: string) {
  const value = encodeLeaseValue({
    publicIp: Address.parse(`192.168.0.${n}`),
    backendType: "",
    backendData: {
      InstanceID: instanceId,
      NetworkInterfaceID: `eni-${n}`,
      VpcID: VPC_ID,
      VSwitchID: "vsw-1",
    },
  });
  return { key: `10.24.${n}.0-24`, value, order: revision };
}

/** An identity whose access is as given. */
function identity(connect: () => Promise<AliVpcAccess>): AliVpcIdentity {
  return {
    instance: { instanceId: "i-1", vpcId: VPC_ID, regionId: "cn-hangzhou" },
    vpcSilence: new Silence(),
    connect,
    makeSourceDestCheck: () => ({ isOff: () => undefined, allOff: () => [] }),
  } as unknown as AliVpcIdentity;
}

function makeTerm(signal: AbortSignal): Term {
  return { id: "7", signal, confirm: () => Promise.resolve() };
}

Deno.test("ClusterWriter.run() outlives a store that does not take the office back", async () => {
  const stop = new AbortController();
  const resigned = Promise.withResolvers<void>();
  const term = new AbortController();
  const election = {
    term: makeTerm(term.signal),
    resign: () => {
      term.abort(new Error("resigned"));
      resigned.resolve();
      return Promise.reject(new StoreError("unavailable", "no leader"));
    },
  };
  const writer = new ClusterWriter({
    identity: identity(() => Promise.reject(new Error("no answer"))),
    election: election as unknown as Election,
    registry: new MemoryRegistry(),
    config,
    network: NETWORK,
    approvalCommand: ({ token }) => `approve ${token}`,
    leases: new LeaseMap({ network: { ipv4: { network: NETWORK } } as never }),
    log: quiet,
  });
  const running = writer.run({ signal: stop.signal });
  await resigned.promise;
  const first = await Promise.race([
    running.then(() => "ended", () => "failed"),
    new Promise((resolve) => setTimeout(resolve, 20, "running")),
  ]);
  stop.abort(new Error("stop"));
  await running.catch(() => {});
  assert.equal(first, "running");
});

Deno.test("ClusterWriter tells a write that waits of leases that come meanwhile", async () => {
  const stop = new AbortController();
  const leases = new LeaseMap({ network: { ipv4: { network: NETWORK } } as never });
  leases.replace([lease(1, "i-1", "1"), lease(2, "i-2", "2")]);
  const scopes: RouteTableScope[] = [];
  let peers: readonly string[] = [];
  const writing = Promise.withResolvers<void>();
  const tables = new Map();
  const routes = {
    kind: routeEntryKind(() => ({
      mark: { clusterId: "c0ffee0123456789", network: NETWORK },
      claims: new Claims([]),
      routeTableIds: new Set(),
      acceptUnnamed: true,
      instanceId: "i-1",
      released: [],
    })),
    orphans: { seed: () => {}, list: () => [] },
    view: { entries: new Map(), failures: new Map(), tables },
    setScope: (scope: RouteTableScope) => scopes.push(scope),
    list: (): Promise<readonly CloudRoute[]> => {
      tables.set("vtb-1", { used: 0 });
      return Promise.resolve([]);
    },
    // As if another write of the VPC had its turn for minutes.
    apply: (_: unknown, { signal }: { signal: AbortSignal }) => {
      writing.resolve();
      return new Promise<never>((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason))
      );
    },
  };
  const access = {
    routeTableIds: ["vtb-1"],
    choice: {
      forPeers: (others: readonly Lease[]) => {
        peers = others.map(({ attributes }) => String(attributes.publicIp));
        return Promise.resolve({ routeTableIds: ["vtb-1"], otherTableIds: [] });
      },
    },
    makeRouteTable: () => routes as unknown as RouteTable,
  } as unknown as AliVpcAccess;
  const term = new AbortController();
  const writer = new ClusterWriter({
    identity: identity(() => Promise.resolve(access)),
    election: { term: makeTerm(term.signal) } as unknown as Election,
    registry: new MemoryRegistry(),
    config,
    network: NETWORK,
    approvalCommand: ({ token }) => `approve ${token}`,
    leases,
    log: quiet,
  });
  const running = writer.run({ signal: stop.signal });
  try {
    await writing.promise;
    assert.deepEqual(peers, ["192.168.0.1", "192.168.0.2"]);
    const claimed = () => scopes.at(-1)!.claims.map(({ instanceId }) => instanceId);
    assert.deepEqual(claimed(), ["i-1", "i-2"]);
    leases.delete("10.24.2.0-24");
    leases.put(lease(3, "i-3", "3"));
    writer.leasesChanged();
    assert.deepEqual(claimed(), ["i-1", "i-3"]);
  } finally {
    stop.abort(new Error("stop"));
    await running.catch(() => {});
  }
});
