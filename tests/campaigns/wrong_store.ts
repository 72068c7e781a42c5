/**
 * A store that forgets: emptied, an old backup, half of it, another prefix, or copied key by key,
 * with the daemons of some hosts stopped at the time. No entry of a running instance is removed or
 * re-pointed; the entry of an instance that is gone for good still goes.
 *
 * @module
 */
import { MemoryStore } from "../fakes/memory_registry.ts";
import { type Campaign, CampaignFailure } from "./campaign.ts";
import {
  type Cluster,
  type Judged,
  shuffled,
  tellInWorld,
  type World,
  type WorldHost,
} from "./cloud_world.ts";

/** What befalls the store. */
export const MISHAPS = ["emptied", "old backup", "half", "prefix typo", "copied"] as const;
export type Mishap = typeof MISHAPS[number];

/** How many daemons are stopped while it happens. */
export const STOPPED = ["none", "one", "half", "all"] as const;
export type Stopped = typeof STOPPED[number];

export interface Case {
  readonly mishap: Mishap;
  readonly stopped: Stopped;
  readonly graceSeconds: number;
  readonly seed: number;
}

/** After these the store knows for which instance an entry was made. */
const REMEMBERED: readonly Mishap[] = ["old backup", "prefix typo"];

const HOSTS = 6;
const START_SECONDS = 180;

/** A key of a store, as a backup keeps it. */
interface Kept {
  readonly path: string;
  readonly value: string;
  readonly ttlSeconds: number | undefined;
}

export const campaign: Campaign = {
  summary: "a store that is emptied, restored, halved, mistyped or copied beside running hosts",
  async run({ long, seed, say, signal }) {
    const cases: Case[] = [];
    for (const graceSeconds of long ? [60, 600] : [60]) {
      for (const [m, mishap] of MISHAPS.entries()) {
        for (const [s, stopped] of STOPPED.entries()) {
          // In the short form each mishap meets one number of daemons.
          if (!long && (m + seed) % STOPPED.length !== s) continue;
          cases.push({ mishap, stopped, graceSeconds, seed: seed + cases.length });
        }
      }
    }
    const violations: string[] = [];
    let removals = 0;
    let left = 0;
    let virtualSeconds = 0;
    for (const each of cases) {
      const title = `${each.mishap}, ${each.stopped} stopped, grace ${each.graceSeconds} s`;
      const outcome = await runCase(each, signal);
      say(
        `${title}: ${outcome.violations.length} violations, ${outcome.removals} removals, ` +
          `what is gone is ${outcome.ending}`,
      );
      left += outcome.ending === "left" ? 1 : 0;
      violations.push(...outcome.violations.map((violation) => `${title}: ${violation}`));
      removals += outcome.removals;
      virtualSeconds += outcome.virtualSeconds;
    }
    if (violations.length > 0) throw new CampaignFailure("wrong-store", violations);
    return {
      cases: cases.length,
      "entries removed or re-pointed": removals,
      "left to a person, as the store forgot whose it was": left,
      "simulated hours": (virtualSeconds / 3_600).toFixed(1),
    };
  },
};

/** What came of one case. */
export interface Outcome extends Judged {
  /** Whether the entries of an instance that left after the mishap went, or wait for a person. */
  readonly ending: "cleared" | "left";
}

/** Runs one case on a clock of its own. */
export async function runCase(each: Case, signal: AbortSignal): Promise<Outcome> {
  const clusters = [{
    name: "a",
    network: "10.24.0.0/20",
    instances: HOSTS + 6,
    vSwitches: [0, 0, 1] as const,
    graceSeconds: each.graceSeconds,
  }];
  return await tellInWorld({ clusters, seed: each.seed, signal }, async (world, random) => ({
    ending: await story(world, each, random),
  }));
}

/** What befalls the cluster; answers whether the last of its entries that nobody needs went. */
async function story(
  world: World,
  each: Case,
  random: () => number,
): Promise<"cleared" | "left"> {
  const [cluster] = world.clusters as [Cluster];
  const { graceSeconds } = each;
  const fault = (text: string) => world.oracle.violations.push(text);
  const entriesOf = ({ instanceId }: WorldHost) =>
    world.entries().filter(({ nextHops }) => nextHops[0]!.id === instanceId);
  const mustBeReady = async (when: string, withinSeconds = START_SECONDS) => {
    if (await cluster.ready(withinSeconds)) return;
    const gone = cluster.hosts.filter(({ isReleased }) => isReleased);
    const waiting = cluster.running.filter((host) =>
      // A backup may bring back the lease of one that is gone for good, which nobody gives up: who
      // has the subnet now keeps its route, and says so.
      !host.isReady &&
      !gone.some(({ privateIp }) =>
        host.reasons.some((reason) => reason.includes(`${privateIp} holds `))
      )
    );
    for (const { instanceId, reasons } of waiting) {
      fault(`${when}: ${instanceId} is not ready: ${reasons.join("; ")}`);
    }
  };
  for (const host of cluster.hosts.slice(0, HOSTS)) host.start();
  await mustBeReady("at first");
  const backup = keep(cluster.store);

  // What the backup does not know: one more host, one that has moved, one that is gone for good.
  cluster.fresh[0]!.start();
  const [moved, gone] = shuffled(cluster.running.slice(0, HOSTS), random);
  await moved!.kill();
  moved!.dropLease();
  await gone!.release();
  gone!.dropLease();
  const former = moved!.subnet;
  cluster.store.put(former!.replace("/", "-"), reservationOf("192.168.1.250"));
  moved!.start();
  await mustBeReady("after hosts came, moved and left");
  cluster.store.delete(former!.replace("/", "-"));
  // And one that has got the subnet of who has moved.
  cluster.fresh[0]!.start(former);
  await mustBeReady("after another host took the subnet over");
  // What is gone for good does go.
  if (!await world.until(() => entriesOf(gone!).length === 0, graceSeconds + 300)) {
    fault(`the entries of ${gone!.instanceId}, which is gone for good, stay`);
  }

  const stopping = shuffled(cluster.running, random).slice(
    0,
    {
      none: 0,
      one: 1,
      half: Math.ceil(cluster.running.length / 2),
      all: cluster.running.length,
    }[each.stopped],
  );
  for (const host of stopping) await (random() < 0.5 ? host.kill() : host.stop());
  await world.sleep(random() * 20);
  await MISHAP[each.mishap](cluster, backup, random);

  // Daemons come back one by one, some after the grace of others; a new host joins.
  const back = [...stopping, cluster.fresh[0]!];
  for (const host of shuffled(back, random)) {
    host.start();
    await world.sleep(random() * 2 * graceSeconds);
  }
  // The writer is killed, and another takes over what it knew.
  const { writer } = cluster;
  await writer?.kill();
  await world.sleep(graceSeconds * (1 + random()));
  writer?.start();
  cluster.fresh[0]!.start();
  await world.sleep(graceSeconds + 180);
  await mustBeReady("in the end", 300);

  // And still does, however many have gone within an hour, where the store knows whose it was.
  const [last] = shuffled(cluster.running, random);
  await last!.release();
  last!.dropLease();
  const isRemembered = REMEMBERED.includes(each.mishap);
  const patienceSeconds = isRemembered ? 1.5 * 3_600 : 3 * graceSeconds;
  if (await world.until(() => entriesOf(last!).length === 0, patienceSeconds)) return "cleared";
  if (isRemembered) {
    fault(`in the end the entries of ${last!.instanceId}, which is gone for good, stay`);
  }
  return "left";
}

const MISHAP: Readonly<
  Record<
    Mishap,
    (cluster: Cluster, backup: readonly Kept[], random: () => number) => Promise<void>
  >
> = {
  async emptied(cluster) {
    await inAnOutage(cluster, () => clear(cluster.store));
  },
  async "old backup"(cluster, backup) {
    await inAnOutage(cluster, () => {
      clear(cluster.store);
      for (const { path, value, ttlSeconds } of backup) {
        cluster.store.area("").put(path, value, ttlSeconds === undefined ? {} : { ttlSeconds });
      }
    });
  },
  async half(cluster, _, random) {
    await inAnOutage(cluster, () => {
      for (const { key } of cluster.store.area("").entries()) {
        if (random() < 0.5) cluster.store.area("").delete(key);
      }
    });
  },
  async "prefix typo"(cluster, _, random) {
    // Those that start from now on look elsewhere; an operator has written the config there, too.
    const right = cluster.store;
    cluster.store = new MemoryStore();
    cluster.configure(cluster.store);
    for (const host of shuffled(cluster.running, random).slice(0, 2)) {
      await host.stop();
      host.start();
    }
    await cluster.world.sleep(cluster.plan.graceSeconds * 1.5);
    // It is noticed; those that went astray come back later.
    cluster.store = right;
  },
  async copied(cluster, _, random) {
    // A new etcd takes the old one's place and gets the keys one by one, without their leases.
    const kept = keep(cluster.store);
    await inAnOutage(cluster, () => clear(cluster.store));
    for (const { path, value } of kept) {
      if (path !== "config") cluster.store.area("").put(path, value);
      await cluster.world.sleep(random() * 10);
    }
  },
};

/** Changes the store while no daemon can reach it; the operator sees to the config. */
async function inAnOutage(cluster: Cluster, change: () => void): Promise<void> {
  cluster.cut(true);
  await cluster.world.sleep(5);
  change();
  cluster.store.compact();
  await cluster.world.sleep(5);
  cluster.configure(cluster.store);
  cluster.cut(false);
}

function keep(store: MemoryStore): readonly Kept[] {
  const all = store.area("");
  return all.entries().map(({ key, value }) => ({
    path: key,
    value,
    ttlSeconds: all.timeToLive(key),
  }));
}

function clear(store: MemoryStore): void {
  for (const { key } of store.area("").entries()) store.area("").delete(key);
}

/** A lease of a host that says nothing of an instance, as upstream's or one made by hand. */
function reservationOf(publicIp: string): string {
  return JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, BackendType: "alloc" });
}
