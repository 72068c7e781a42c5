/**
 * Daemons whose stderr takes nothing, from their first line on: they become ready, follow peers,
 * keep their leases, and end on SIGTERM, as if nobody cared for their words.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import { ETCD_PREFIX, type Host, openLab } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { settleAll } from "../support/settle_all.ts";
import { patient } from "../support/slowness.ts";
import { type Campaign, CampaignFailure } from "./campaign.ts";
import { fullDisk, fullPipe, fullSocket, readerGone, type UnreadStderr } from "./unread_stderr.ts";
import { routesOf, terminate, wrapProgram } from "./wrapped_daemon.ts";

const STOP_MS = 2_000;
const CONFIG = { Network: "10.24.0.0/16", Backend: { Type: "host-gw" } };
/** Peers that come and go together, each with a line in the log. */
const PEERS = 50;
/** How often. */
const ROUNDS = { short: 2, long: 200 };

export const campaign: Campaign = {
  summary: "stderr that nobody reads: full pipe, full socket, full disk, reader gone",
  async run({ long, signal, say }) {
    using stack = new DisposableStack();
    await using lab = await openLab({ signal, topology: "l2", hosts: 4, cloud: false });
    await lab.writeConfig(CONFIG, { signal });
    const places: [string, UnreadStderr][] = [
      ["full pipe", stack.use(await fullPipe(`${lab.directory}/pipe`, { signal }))],
      ["full socket", stack.use(fullSocket())],
      ["full disk", stack.use(fullDisk())],
      ["reader gone", stack.use(readerGone())],
    ];
    const violations: string[] = [];
    const figures: Record<string, number> = {};
    await settleAll(places.map(async ([title, { redirection }], index) => {
      const host = lab.hosts[index]!;
      const program = await wrapProgram(host, { redirection });
      await host.startDaemon({ program, flags: ["-v=2", "--subnet-lease-renew-margin=1439"] });
      await eventually(() => host.daemon.isReady(), { signal, title: `${title}: ready` });
    }));
    say("all are ready");

    const observe = async (host: Host, subnet: string, present: boolean, title: string) => {
      try {
        await eventually(async () => (await routesOf(host, { signal })).has(subnet) === present, {
          signal,
          title: `${title}: ${subnet} ${present ? "routed" : "gone"}`,
          timeoutMs: 10_000,
        });
      } catch (error) {
        signal.throwIfAborted();
        violations.push(error instanceof Error ? error.message : String(error));
      }
    };
    const observeAll = (present: boolean) =>
      settleAll(
        places.map(([title], index) =>
          observe(lab.hosts[index]!, "10.24.200.0/24", present, title)
        ),
      );
    // Peers that come and go make lines, most of which find no room.
    const rounds = long ? ROUNDS.long : ROUNDS.short;
    const PublicIP = lab.hosts[0]!.address.replace(/\d+$/, "99");
    const value = JSON.stringify({ PublicIP, BackendType: "host-gw" });
    const keys = Array.from({ length: PEERS }, (_, index) => `10.24.${200 + index}.0-24`)
      .map((subnet) => `${ETCD_PREFIX}/subnets/${subnet}`);
    for (let round = 0; round < rounds; round++) {
      await lab.etcd.transact(keys.map((key) => `put ${key} ${value}`), { signal });
      if (round === 0) await observeAll(true);
      await lab.etcd.transact(keys.map((key) => `del ${key}`), { signal });
    }
    await observeAll(false);
    say(`${rounds * keys.length} peers came and went`);

    // A lease that went is taken back; in the long form it is also renewed when that is due.
    for (const [index, [title]] of places.entries()) {
      const { families } = await lab.hosts[index]!.readSubnetEnv();
      const key = `${families[0]!.subnet.prefix}`.replace("/", "-");
      await lab.etcd.ctl(["del", `${ETCD_PREFIX}/subnets/${key}`], { signal });
      try {
        await eventually(async () => (await lab.leases({ signal })).has(key), {
          signal,
          title: `${title}: its lease back`,
          timeoutMs: 10_000,
        });
      } catch (error) {
        signal.throwIfAborted();
        violations.push(error instanceof Error ? error.message : String(error));
      }
    }
    if (long) {
      const before = await lab.leases({ signal });
      await delay(75_000, { signal });
      if ((await lab.leases({ signal })).size !== before.size) violations.push("a lease went");
    }
    await settleAll(places.map(async ([title], index) => {
      const { code, tookMs } = await terminate(lab.hosts[index]!);
      figures[`SIGTERM to end, ${title} (ms)`] = Math.round(tookMs);
      if (code !== 0) violations.push(`${title}: it exited with ${code}`);
      if (tookMs > patient(STOP_MS)) {
        violations.push(`${title}: it took ${Math.round(tookMs)} ms to end`);
      }
    }));
    if (violations.length > 0) throw new CampaignFailure("stalled-stderr", violations);
    return figures;
  },
};
