/**
 * A candidate of an election as a process of its own: `election_candidate.ts <v3|v2> <etcd's URL>
 * <name> <ttlSeconds> <marginMs>`. While it leads it confirms that again and again.
 * Each line on its standard output is an {@linkcode Observation}. It runs until it is killed.
 *
 * @module
 */
import { createLogger } from "../../src/log.ts";
import { KeyElection } from "../../src/store/keys/election.ts";
import { EtcdV2Registry } from "../../src/store/etcd/v2.ts";
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import { delay } from "../../src/util/time.ts";
import { settingsFor } from "./support.ts";

/** What a candidate tells. Times are milliseconds since the epoch. */
export type Observation =
  | {
    readonly type: "confirmed";
    readonly name: string;
    readonly term: string;
    /** Just before it was asked, and just after the answer. */
    readonly from: number;
    readonly to: number;
  }
  | { readonly type: "holder"; readonly name: string; readonly holder: string | null };

if (import.meta.main) await run(Deno.args);

async function run(args: readonly string[]): Promise<void> {
  const [api, endpoint, name, ttlSeconds, marginMs] = args as [string, string, string, ...string[]];
  const { signal } = new AbortController();
  const settings = settingsFor([endpoint]);
  const registry = api === "v2" ? new EtcdV2Registry(settings) : new EtcdV3Registry(settings);
  const election = new KeyElection({
    space: registry.space("ali-vpc/election"),
    key: "writer",
    holder: name,
    ttlSeconds: Number(ttlSeconds),
    log: createLogger({ format: "human", verbosity: 0 }),
  });
  election.leadership.subscribe((leadership) =>
    tell({ type: "holder", name, holder: leadership?.holder ?? null })
  );
  const running = election.run({ signal });
  while (true) {
    const { term } = election;
    if (term !== undefined) {
      const from = Date.now();
      try {
        await term.confirm({ signal, marginMs: Number(marginMs) });
        tell({ type: "confirmed", name, term: term.id, from, to: Date.now() });
      } catch { /* not the holder, or not sure of it */ }
    }
    await Promise.race([delay(50, { signal }), running]);
  }
}

function tell(observation: Observation): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify(observation)}\n`));
}
