/**
 * Several clusters in one VPC, in the same tables or others, with the same network, overlapping
 * ones or their own: for a simulated day hosts join, leave for good and fail, and no daemon ever
 * writes an entry of another cluster.
 *
 * @module
 */
import { type Campaign, CampaignFailure } from "./campaign.ts";
import {
  type Cluster,
  type ClusterPlan,
  type Judged,
  shuffled,
  tellInWorld,
  type World,
} from "./cloud_world.ts";

/** Clusters that share a VPC, and for how long. */
export interface Setting {
  readonly title: string;
  readonly networks: readonly string[];
  /** Of each cluster, the vSwitches of its hosts; each of the two has a table of its own. */
  readonly vSwitches: readonly (readonly (0 | 1)[])[];
  readonly hours: number;
  readonly seed: number;
}

/** Small enough that two clusters draw the same subnet now and then. */
const NETWORK = "10.24.0.0/19";
const GRACE_SECONDS = 60;
const HOSTS = 3;
const INSTANCES = 12;
/** On average, something befalls a cluster so often. */
const EVENT_SECONDS = 600;
/** What is gone for good goes within this, however many wait for their turn. */
const CLEAN_SECONDS = 3 * 3_600;

export const campaign: Campaign = {
  summary: "two to four clusters in one VPC for a day, with the same tables and networks or others",
  async run({ long, seed, say, signal }) {
    const settings: Omit<Setting, "hours" | "seed">[] = [
      { title: "same network, other tables", networks: [NETWORK, NETWORK], vSwitches: [[0], [1]] },
      { title: "same network, same table", networks: [NETWORK, NETWORK], vSwitches: [[0], [0]] },
      {
        title: "overlapping networks, shared tables",
        networks: ["10.24.0.0/18", NETWORK, "10.24.16.0/20"],
        vSwitches: [[0, 1], [1], [0, 1]],
      },
      {
        title: "own networks and one twice, same tables",
        networks: [NETWORK, "10.25.0.0/16", "10.26.0.0/16", NETWORK],
        vSwitches: [[0, 1], [0, 1], [0, 1], [0, 1]],
      },
    ];
    const violations: string[] = [];
    let events = 0;
    let removals = 0;
    let hours = 0;
    for (const [n, setting] of settings.entries()) {
      if (!long && n % 2 !== seed % 2) continue;
      // One of them lives a whole day.
      const lasts = long ? n === seed % settings.length ? 24 : 4 : 0.5;
      const outcome = await runSetting({ ...setting, hours: lasts, seed: seed + n }, signal);
      say(
        `${setting.title}, ${lasts} h: ${outcome.violations.length} violations, ` +
          `${outcome.events} events, ${outcome.removals} removals`,
      );
      violations.push(...outcome.violations.map((each) => `${setting.title}: ${each}`));
      events += outcome.events;
      removals += outcome.removals;
      hours += lasts;
    }
    if (violations.length > 0) throw new CampaignFailure("clusters", violations);
    return {
      "simulated hours": hours,
      events,
      "entries removed or re-pointed, each by its own cluster": removals,
    };
  },
};

/** What came of one setting. */
export interface Outcome extends Judged {
  readonly events: number;
}

/** Lets the clusters of one setting live their time, on a clock of its own. */
export async function runSetting(setting: Setting, signal: AbortSignal): Promise<Outcome> {
  const clusters = setting.networks.map((network, n): ClusterPlan => ({
    name: "abcd"[n]!,
    network,
    instances: INSTANCES,
    vSwitches: setting.vSwitches[n]!,
    graceSeconds: GRACE_SECONDS,
  }));
  return await tellInWorld({ clusters, seed: setting.seed, signal }, async (world, random) => {
    const lives = world.clusters.map((cluster) => live(cluster, setting.hours, random));
    const events = await Promise.all(lives);
    await judgeEnd(world);
    return { events: events.reduce((sum, each) => sum + each, 0) };
  });
}

/** What befalls one cluster; answers how much did. */
async function live(cluster: Cluster, hours: number, random: () => number): Promise<number> {
  const { world } = cluster;
  for (const host of cluster.hosts.slice(0, HOSTS)) {
    await world.sleep(random() * 60);
    host.start();
  }
  await world.sleep(120);
  let events = 0;
  for (;;) {
    await world.sleep(random() * 2 * EVENT_SECONDS);
    if (world.time.elapsedMs > hours * 3_600_000) return events;
    const [host] = shuffled(cluster.running, random);
    const draw = random();
    events++;
    if (draw < 0.25) cluster.fresh[0]?.start();
    else if (draw < 0.4 && cluster.running.length > 2) {
      await host!.release();
      host!.dropLease();
    } else if (draw < 0.6) {
      await (random() < 0.5 ? host!.kill() : host!.stop());
      await world.sleep(random() * 4 * GRACE_SECONDS);
      host!.start();
    } else if (draw < 0.8) {
      const { writer } = cluster;
      await writer?.kill();
      await world.sleep(random() * 4 * GRACE_SECONDS);
      writer?.start();
    } else {
      cluster.cut(true);
      await world.sleep(random() * 4 * GRACE_SECONDS);
      cluster.cut(false);
    }
  }
}

async function judgeEnd(world: World): Promise<void> {
  const fault = (text: string) => world.oracle.violations.push(text);
  for (const cluster of world.clusters) {
    if (await cluster.ready(600)) continue;
    for (const host of cluster.running.filter(({ isReady }) => !isReady)) {
      fault(`in the end ${host.instanceId} is not ready: ${host.reasons.join("; ")}`);
    }
  }
  const stale = () =>
    world.entries().filter(({ nextHops }) => world.hostOf(nextHops[0]!.id)!.isReleased);
  await world.until(() => stale().length === 0, CLEAN_SECONDS);
  for (const { destination, nextHops } of stale()) {
    fault(`in the end the entry ${destination} of ${nextHops[0]!.id}, which is gone, stays`);
  }
}
