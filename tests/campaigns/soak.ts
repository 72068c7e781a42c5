/**
 * A busy day in minutes: a thousand leases, ten changes a second, etcd that goes and comes back,
 * and a device that is set down and deleted. Memory and descriptors do not grow with time, and the
 * kernel has what the leases say in the end.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import { ETCD_PREFIX, openLab } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { patient } from "../support/slowness.ts";
import { type Campaign, CampaignFailure, seededRandom } from "./campaign.ts";
import { openDescriptors, routesOf, terminate, wrapProgram } from "./wrapped_daemon.ts";

const LEASES = { short: 200, long: 1_000 };
const SECONDS = { short: 8, long: 480 };
/** The collector lets the heap swing by this much. */
const MAX_GROWTH_BYTES = 16 * 2 ** 20;
const MAX_DESCRIPTORS = 5;
const STOP_MS = 2_000;
/** Operations of one transaction, of which etcd takes 128. */
const BATCH = 100;

export const campaign: Campaign = {
  summary: "1,000 leases, 10 changes a second, etcd restarts, device flaps: memory stays flat",
  async run({ long, seed, signal, say }) {
    const random = seededRandom(seed);
    const count = long ? LEASES.long : LEASES.short;
    const seconds = long ? SECONDS.long : SECONDS.short;
    await using lab = await openLab({ signal, topology: "l2", hosts: 1, cloud: false });
    const [host] = lab.hosts;
    await lab.writeConfig({ Network: "10.24.0.0/13", Backend: { Type: "vxlan" } }, { signal });
    const put = (index: number, generation: number) =>
      `put ${keyOf(index)} ${valueOf(index, generation)}`;
    for (let from = 0; from < count; from += BATCH) {
      const length = Math.min(BATCH, count - from);
      await lab.etcd.transact(
        Array.from({ length }, (_, offset) => put(from + offset, 0)),
        { signal },
      );
    }
    const daemon = await host!.startDaemon({ program: await wrapProgram(host!, {}) });
    await daemon.ready({ signal });
    const { process } = daemon;
    const violations: string[] = [];
    const present = new Set(Array.from({ length: count }, (_, index) => index));
    const samples: { readonly second: number; readonly bytes: number }[] = [];
    let descriptors: number | undefined;
    const startedAt = performance.now();
    const elapsed = () => (performance.now() - startedAt) / 1_000;
    for (let round = 1; elapsed() < seconds; round++) {
      const chosen = new Set(Array.from({ length: 10 }, () => Math.floor(random() * count)));
      await lab.etcd.transact(
        [...chosen].map((index) => {
          if (present.has(index) && random() < 0.5) {
            present.delete(index);
            return `del ${keyOf(index)}`;
          }
          present.add(index);
          return put(index, round % 200);
        }),
        { signal },
      );
      if (round % (long ? 40 : 4) === 0) {
        await lab.etcd.kill();
        await delay(500 * random(), { signal });
        await lab.etcd.start({ signal });
      }
      if (round % (long ? 15 : 3) === 0) {
        const act = random() < 0.5 ? "link set flannel.1 down" : "link delete flannel.1";
        await host!.namespace.ip([act], { signal }).catch(() => {/* it is not back yet */});
      }
      await delay(Math.max(0, round * 1_000 - elapsed() * 1_000), { signal });
      if (elapsed() > seconds / 3) {
        descriptors ??= openDescriptors(process.pid);
        samples.push({ second: elapsed(), bytes: process.residentBytes() });
      }
      if (round % 60 === 0) say(`${Math.round(elapsed())} s: ${process.residentBytes() >> 20} MiB`);
    }
    const expected = [...present].map((index) => `${subnetOf(index)}.0/24`);
    await eventually(async () => {
      const routes = await routesOf(host!, { signal });
      const ours = [...routes].filter((each) => /^10\.(2[4-9]|3[01])\./.test(each));
      return expected.every((each) => routes.has(each)) && ours.length === expected.length;
    }, { signal, title: "the kernel's routes to be those of the leases", timeoutMs: 60_000 });
    await delay(2_000, { signal });

    const growth = trend(samples) * (samples.at(-1)!.second - samples[0]!.second);
    if (growth > MAX_GROWTH_BYTES) violations.push(`it grew by ${growth >> 20} MiB`);
    const moreDescriptors = openDescriptors(process.pid) - descriptors!;
    if (moreDescriptors > MAX_DESCRIPTORS) violations.push(`${moreDescriptors} more descriptors`);
    const { code, tookMs } = await terminate(host!);
    if (code !== 0 || tookMs > patient(STOP_MS)) {
      violations.push(`it exited with ${code} after ${Math.round(tookMs)} ms`);
    }
    if (violations.length > 0) throw new CampaignFailure("soak", violations);
    return {
      "leases at the end": present.size,
      "memory at the end (MiB)": Math.round(samples.at(-1)!.bytes / 2 ** 20),
      "growth in the last two thirds (MiB)": Math.round(growth / 2 ** 10) / 2 ** 10,
      "more descriptors": moreDescriptors,
      "SIGTERM to end (ms)": Math.round(tookMs),
    };
  },
};

function subnetOf(index: number): string {
  return `10.${25 + (index >> 8)}.${index & 255}`;
}

function keyOf(index: number): string {
  return `${ETCD_PREFIX}/subnets/${subnetOf(index)}.0-24`;
}

function valueOf(index: number, generation: number): string {
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  return JSON.stringify({
    PublicIP: `172.${16 + (generation & 7)}.${index >> 8}.${index & 255}`,
    BackendType: "vxlan",
    BackendData: {
      VNI: 1,
      VtepMAC: `02:00:5e:${hex(generation & 255)}:${hex(index >> 8)}:${hex(index & 255)}`,
    },
  });
}

/** Bytes a second, by least squares. */
function trend(samples: readonly { readonly second: number; readonly bytes: number }[]): number {
  const mean = (values: number[]) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const second = mean(samples.map((each) => each.second));
  const bytes = mean(samples.map((each) => each.bytes));
  const spread = samples.reduce((sum, each) => sum + (each.second - second) ** 2, 0);
  return samples.reduce((sum, each) => sum + (each.second - second) * (each.bytes - bytes), 0) /
    Math.max(spread, 1e-9);
}
