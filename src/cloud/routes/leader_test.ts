import assert from "node:assert/strict";
import { MemoryRegistry, openMemoryStore } from "../../../tests/fakes/memory_registry.ts";
import { aliVpc, readAliVpcClaim } from "../../backends/mod.ts";
import { encodeLeaseValue } from "../../lease/codec.ts";
import { LeaseMap } from "../../lease/lease_map.ts";
import type { Logger } from "../../log.ts";
import { Address, Prefix } from "../../net/mod.ts";
import { StoreError } from "../../store/errors.ts";
import type { Election, Term } from "../../store/election.ts";
import { clusterStore } from "./cluster_store.ts";
import { ClusterLeader } from "./leader.ts";
import type { Cloud, CloudAccess, NewRoute, RouteApi, WriteOptions } from "./provider.ts";
import { Silence } from "./silence.ts";

const NETWORK = Prefix.parse("10.24.0.0/16");
const VPC_ID = "vpc-1";
const TABLE = "table-1";

const quiet: Logger = {
  trace: () => {},
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => quiet,
};

const { config } = aliVpc.parseConfig({ Type: "ali-vpc", SourceDestCheck: "ignore" });

function lease(n: number, instanceId: string, order: string) {
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
  return { key: `10.24.${n}.0-24`, value, order };
}

/** A leader of these leases, in a cloud that is opened by `connect`. */
function leaderOf(
  leases: LeaseMap,
  election: object,
  connect: () => Promise<CloudAccess>,
  routes: Partial<RouteApi> = {},
): ClusterLeader {
  const cloud = {
    instance: { instanceId: "i-1", networkInterfaceId: "eni-1", vpcId: VPC_ID },
    routes: { words: {}, hasMarks: true, writesAtOnce: 2, ...routes },
    clock: {},
    silence: new Silence(),
    connect,
  } as unknown as Cloud;
  return new ClusterLeader({
    cloud,
    election: election as Election,
    store: clusterStore(openMemoryStore(new MemoryRegistry()), "ali-vpc"),
    config,
    readClaim: readAliVpcClaim,
    network: NETWORK,
    leases,
    log: quiet,
  });
}

function makeTerm(signal: AbortSignal): Term {
  return { id: "7", signal, confirm: () => Promise.resolve() };
}

Deno.test("ClusterLeader.run() outlives a store that does not take the lead back", async () => {
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
  const leases = new LeaseMap({ network: { ipv4: { network: NETWORK } } as never });
  const leader = leaderOf(leases, election, () => Promise.reject(new Error("no answer")));
  const running = leader.run({ signal: stop.signal });
  await resigned.promise;
  const first = await Promise.race([
    running.then(() => "ended", () => "failed"),
    new Promise((resolve) => setTimeout(resolve, 20, "running")),
  ]);
  stop.abort(new Error("stop"));
  await running.catch(() => {});
  assert.equal(first, "running");
});

Deno.test("ClusterLeader writes nothing for a lease that ends while the write waits", async () => {
  const stop = new AbortController();
  const leases = new LeaseMap({ network: { ipv4: { network: NETWORK } } as never });
  leases.replace([lease(1, "i-1", "1"), lease(2, "i-2", "2")]);
  let peers: readonly string[] = [];
  const waiting: string[] = [];
  const turn = Promise.withResolvers<void>();
  const outcomes = new Map<string, string>();
  const allWait = Promise.withResolvers<void>();
  const allSent = Promise.withResolvers<void>();
  const routes = {
    readTable: () => Promise.resolve({ entries: [], used: 0 }),
    read: () => Promise.resolve([]),
    // As if another write had its turn for minutes.
    async create({ instanceId }: NewRoute, { signal, beforeSend }: WriteOptions) {
      if (waiting.push(instanceId) === 2) allWait.resolve();
      await turn.promise;
      try {
        await beforeSend?.({ signal });
        outcomes.set(instanceId, "sent");
        return undefined;
      } catch (error) {
        outcomes.set(instanceId, (error as Error).message);
        throw error;
      } finally {
        if (outcomes.size === 2) allSent.resolve();
      }
    },
  };
  const access: CloudAccess = {
    routeTableIds: [TABLE],
    tablesFor: (others) => {
      peers = others.map(({ attributes }) => String(attributes.publicIp));
      return Promise.resolve({ routeTableIds: [TABLE], otherTableIds: [] });
    },
  };
  const term = new AbortController();
  const election = { term: makeTerm(term.signal) };
  const leader = leaderOf(leases, election, () => Promise.resolve(access), routes);
  const running = leader.run({ signal: stop.signal });
  try {
    await allWait.promise;
    assert.deepEqual(peers, ["192.168.0.1", "192.168.0.2"]);
    assert.deepEqual(waiting, ["i-1", "i-2"]);
    leases.delete("10.24.2.0-24");
    leases.put(lease(3, "i-3", "3"));
    leader.leasesChanged();
    turn.resolve();
    await allSent.promise;
    assert.deepEqual(Object.fromEntries(outcomes), {
      "i-1": "sent",
      "i-2": "i-2 does not hold the lease of 10.24.2.0/24 any more",
    });
  } finally {
    stop.abort(new Error("stop"));
    await running.catch(() => {});
  }
});
