/**
 * Strangers at the health endpoints: thousands of connections that send half a request or read no
 * response, and tens of thousands of bad heads, on a host with plenty of descriptors and on one
 * with few. The daemon answers, follows peers, logs next to nothing, and gives everything back.
 *
 * @module
 */
import { ETCD_PREFIX, type Host, openLab, REPOSITORY } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { settleAll } from "../support/settle_all.ts";
import { patient } from "../support/slowness.ts";
import { delay } from "../../src/util/time.ts";
import { type Campaign, CampaignFailure } from "./campaign.ts";
import { openDescriptors, routesOf, terminate, wrapProgram } from "./wrapped_daemon.ts";

const PORT = 8089;
const ANSWER_MS = 5_000;
const STOP_MS = 2_000;
const MAX_LINES = 10;
const MAX_DESCRIPTORS = 5;
const MAX_GROWTH_BYTES = 32 * 2 ** 20;

/** Surroundings, and the address that the attacker uses. */
const HOSTS = [
  { title: "plenty of descriptors", commands: "" },
  { title: "128 descriptors", commands: "ulimit -n 128" },
];

interface Attack {
  readonly whileHeldMs: number;
  readonly answered: number;
  readonly afterwardsMs: number;
}

export const campaign: Campaign = {
  summary: "health endpoints under half-open connections, bad heads and few descriptors",
  async run({ long, signal, say }) {
    const [slow, bad] = long ? [2_000, 100_000] : [300, 2_000];
    await using lab = await openLab({ signal, topology: "l2", hosts: HOSTS.length, cloud: false });
    await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "host-gw" } }, { signal });
    const violations: string[] = [];
    const figures: Record<string, number> = {};
    await settleAll(HOSTS.map(async ({ commands }, index) => {
      const host = lab.hosts[index]!;
      const program = await wrapProgram(host, { commands });
      const daemon = await host.startDaemon({
        program,
        flags: [`--healthz-port=${PORT}`, "--healthz-ip=0.0.0.0"],
      });
      await daemon.ready({ signal });
    }));

    await settleAll(HOSTS.map(async ({ title }, index) => {
      const host = lab.hosts[index]!;
      const { process } = host.daemon;
      // What it needs once is no growth: the collector lets the heap be what a load asks for.
      await attack(host, [50, Math.ceil(bad / 4)], { signal });
      const before = {
        lines: process.lines.length,
        descriptors: openDescriptors(process.pid),
        bytes: process.residentBytes(),
      };
      const fact = (name: string, value: number, limit: number) => {
        figures[`${title}: ${name}`] = Math.round(value);
        if (!(value <= limit)) {
          violations.push(`${title}: ${name} is ${Math.round(value)}, not at most ${limit}`);
        }
      };
      const attacking = attack(host, [slow, bad], { signal });
      // Amid the attack a peer comes, which has to be routed.
      const subnet = `10.24.${200 + index}.0`;
      await lab.etcd.put(
        `${ETCD_PREFIX}/subnets/${subnet}-24`,
        JSON.stringify({
          PublicIP: host.address.replace(/\d+$/, `${200 + index}`),
          BackendType: "host-gw",
        }),
        { signal },
      );
      const startedAt = performance.now();
      await eventually(async () => (await routesOf(host, { signal })).has(`${subnet}/24`), {
        signal,
        title: `${title}: the new peer routed`,
      });
      fact("new peer routed (ms)", performance.now() - startedAt, patient(ANSWER_MS));
      const { whileHeldMs, answered, afterwardsMs } = await attacking;
      say(`${title}: attacked`);
      fact("answer while connections are held (ms)", whileHeldMs, patient(ANSWER_MS));
      fact("answer afterwards (ms)", afterwardsMs, patient(ANSWER_MS));
      fact("bad requests without an answer", bad - answered, bad / 100);
      await delay(1_000, { signal });
      fact("log lines", process.lines.length - before.lines, MAX_LINES);
      fact(
        "more descriptors than before",
        openDescriptors(process.pid) - before.descriptors,
        MAX_DESCRIPTORS,
      );
      fact("more bytes than before", process.residentBytes() - before.bytes, MAX_GROWTH_BYTES);
      const { code, tookMs } = await terminate(host);
      fact("SIGTERM to end (ms)", tookMs, patient(STOP_MS));
      if (code !== 0) violations.push(`${title}: it exited with ${code}`);
    }));
    if (violations.length > 0) throw new CampaignFailure("health", violations);
    return figures;
  },
};

/** Attacks the host from inside; it is the daemon, not the network, that is tried. */
async function attack(
  host: Host,
  counts: readonly [slow: number, bad: number],
  options: { readonly signal: AbortSignal },
): Promise<Attack> {
  const script = `${REPOSITORY}tests/campaigns/health_attacker.ts`;
  const args = [
    "run",
    "-A",
    "--cached-only",
    script,
    host.address,
    `${PORT}`,
    ...counts.map(String),
  ];
  const text = await host.namespace.run(Deno.execPath(), args, { ...options, timeoutMs: 600_000 });
  return JSON.parse(text.replaceAll("null", "1e9"));
}
