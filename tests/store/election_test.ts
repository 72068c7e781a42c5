/**
 * The election over real etcd: candidates are processes that are killed, stopped and cut off.
 *
 * @module
 */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { denoEnvironment } from "../lab/program.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { eventually } from "../support/eventually.ts";
import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import { patient } from "../support/slowness.ts";
import type { Observation } from "./election_candidate.ts";
import { etcdTest, Relay } from "./support.ts";

const { signal } = new AbortController();
/** A process must be able to start again within it. */
const TTL_SECONDS = Math.ceil(patient(6_000) / 1_000);
/** Candidates do not call themselves holders with less than this left. */
const MARGIN_MS = 1_000;
/** The office is filled again so long after its holder was last heard of. */
const REFILL_MS = TTL_SECONDS * 1_000 + patient(5_000);

type Confirmed = Extract<Observation, { type: "confirmed" }>;

/** A host: its process, and its way to etcd, which can be cut. */
class Host implements AsyncDisposable {
  readonly relay: Relay;
  readonly #start: () => LoggedProcess;
  readonly #processes: LoggedProcess[] = [];

  constructor(readonly name: string, api: string, etcdPort: number, directory: string) {
    this.relay = new Relay(etcdPort);
    const script = new URL("election_candidate.ts", import.meta.url).pathname;
    const args = [api, this.relay.endpoint, name, String(TTL_SECONDS), String(MARGIN_MS)];
    this.#start = () =>
      startLogged({
        program: Deno.execPath(),
        args: ["run", "-A", "--cached-only", "--no-check", script, ...args],
      }, { title: name, logFile: `${directory}/${name}.log`, env: denoEnvironment() });
    this.start();
  }

  start(): void {
    this.#processes.push(this.#start());
  }

  get process(): LoggedProcess {
    return this.#processes.at(-1)!;
  }

  /** All that the processes of this host have told. */
  get observations(): Observation[] {
    return this.#processes.flatMap(({ lines }) => lines)
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Observation);
  }

  get confirmed(): Confirmed[] {
    return this.observations.filter((each): each is Confirmed => each.type === "confirmed");
  }

  /** Whom this host has last taken for the holder. */
  get holder(): string | null | undefined {
    return this.observations.findLast((each) => each.type === "holder")?.holder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.signal("SIGCONT");
    await this.process.kill();
    this.relay[Symbol.dispose]();
  }
}

for (const api of ["v3", "v2"] as const) {
  etcdTest(`Election over etcd ${api} has one holder, whatever happens to it`, async () => {
    const directory = await Deno.makeTempDir({ prefix: "flanneld-test-election-" });
    await using stack = new AsyncDisposableStack();
    stack.defer(() => Deno.remove(directory, { recursive: true }));
    const flags = api === "v2" ? ["--enable-v2"] : [];
    const etcd = stack.use(await EtcdServers.start({ signal, flags }));
    const hosts = ["a", "b", "c"].map((name) =>
      stack.use(new Host(name, api, etcd.any.port, directory))
    );

    /** The first host but `gone` that holds the office after `since`, and when it did. */
    const holderAfter = (since: number, gone?: Host) =>
      eventually(() => {
        const [first] = hosts.filter((host) => host !== gone).flatMap((host) => {
          const confirmed = host.confirmed.find(({ from }) => from >= since);
          return confirmed === undefined ? [] : [{ host, at: confirmed.to }];
        }).sort((a, b) => a.at - b.at);
        return first;
      }, { signal, title: "a holder of the office", intervalMs: 20 });
    const refilled = async (since: number, gone: Host) => {
      const next = await holderAfter(since, gone);
      assert(next.at - since <= REFILL_MS, `filled after ${next.at - since} ms`);
      return next.host;
    };
    const allFollow = (holder: Host) =>
      eventually(() => hosts.every((host) => host.holder === holder.name), {
        signal,
        title: `all to know ${holder.name} as the holder`,
      });

    const first = (await holderAfter(0)).host;
    await allFollow(first);

    // Its host dies, and comes back when another has the office.
    let since = Date.now();
    await first.process.kill();
    const second = await refilled(since, first);
    first.start();
    await allFollow(second);

    // It is stopped for longer than its term, in whatever it is doing, and goes on.
    since = Date.now();
    second.process.signal("SIGSTOP");
    const third = await refilled(since, second);
    await delay(Math.max(0, since + 2 * TTL_SECONDS * 1_000 - Date.now()), { signal });
    second.process.signal("SIGCONT");
    await allFollow(third);

    // It is cut off from the store, without a connection being closed.
    since = Date.now();
    third.relay.freeze();
    const fourth = await refilled(since, third);
    await delay(2_000, { signal });
    third.relay.restore();
    await allFollow(fourth);

    // It restarts: nobody else gets the office.
    since = Date.now();
    await fourth.process.kill();
    fourth.start();
    assert.equal((await holderAfter(since)).host.name, fourth.name);
    await allFollow(fourth);

    assertOneAtATime(hosts.flatMap(({ confirmed }) => confirmed));
    const entries = await etcd.any.ctl(
      api === "v2"
        ? ["ls", "-r", "/coreos.com/network/ali-vpc"]
        : ["get", "--prefix", "--keys-only", "/coreos.com/network"],
      { signal, api: api === "v2" ? 2 : 3 },
    );
    assert.deepEqual(entries.split("\n").filter((line) => line.endsWith("/writer")), [
      "/coreos.com/network/ali-vpc/election/writer",
    ]);
  });
}

/**
 * The oracle: what was confirmed in one term lies wholly before what was confirmed in the next, as
 * far before as the margin that was asked for. Except where a host took over its own office, whose
 * former process was killed before.
 */
function assertOneAtATime(confirmed: readonly Confirmed[]): void {
  const terms = [...Map.groupBy(confirmed, ({ term }) => term).values()]
    .map((each) => ({
      name: each[0]!.name,
      from: Math.min(...each.map(({ from }) => from)),
      to: Math.max(...each.map(({ to }) => to)),
      count: each.length,
    }))
    .sort((a, b) => a.from - b.from);
  assert(terms.length >= 5, `terms ${JSON.stringify(terms)}`);
  for (const [index, term] of terms.entries()) {
    const next = terms[index + 1];
    if (next === undefined) continue;
    const gapMs = next.name === term.name ? 0 : MARGIN_MS;
    assert(term.to + gapMs <= next.from, `overlap in ${JSON.stringify([term, next])}`);
  }
}
