// deno-lint-ignore-file no-console -- the campaign reads what is printed
/**
 * The process that the campaign `etcd-silent` looks at: it asks endpoints again and again, by the
 * connections of the stores themselves, and prints its descriptors and heap before and afterwards.
 *
 * @module
 */
import { createLogger } from "../../src/log.ts";
import { EtcdConnection } from "../../src/store/etcd/connection.ts";
import { parseEtcdOptions } from "../../src/store/etcd/options.ts";
import { EtcdV2Client } from "../../src/store/etcd/v2_client.ts";

/** What the subject is told, as JSON in its only argument. */
export interface SubjectOrder {
  /** Asked side by side, each in a row of its own. */
  readonly endpoints: readonly SubjectEndpoint[];
  readonly attempts: number;
  readonly timeoutMs: number;
  /** How long to wait before a look: grpc-js keeps what it closed for ten seconds. */
  readonly settleMs: number;
}

/** Whom to ask, and how. */
export interface SubjectEndpoint {
  readonly url: string;
  readonly api: "v3" | "v2";
}

/** What it prints. */
export interface SubjectReport {
  readonly before: Sample;
  readonly after: Sample;
  /** The different ends of attempts, for each endpoint. */
  readonly ends: readonly (readonly string[])[];
}

/** The state of a process at one time. */
export interface Sample {
  readonly descriptors: number;
  readonly heapBytes: number;
}

/** Attempts before the first sample: what they load stays. */
const WARM_UP = 5;

if (import.meta.main) {
  const report = await ask(JSON.parse(Deno.args[0]!));
  console.log(JSON.stringify(report));
  Deno.exit(0); // a client that was left open would keep it alive
}

async function ask(order: SubjectOrder): Promise<SubjectReport> {
  const ends = order.endpoints.map(() => new Set<string>());
  const attempts = order.endpoints.map((endpoint) => attemptOf(endpoint, order.timeoutMs));
  const repeat = async (times: number) => {
    await Promise.all(attempts.map(async (attempt, index) => {
      for (let i = 0; i < times; i++) {
        const end = await attempt().then(() => "served", (error) => String(error.message));
        ends[index]!.add(end);
      }
    }));
  };
  await repeat(WARM_UP);
  const before = await sample(order.settleMs);
  await repeat(order.attempts);
  const after = await sample(order.settleMs);
  return { before, after, ends: ends.map((each) => [...each]) };
}

function attemptOf({ url, api }: SubjectEndpoint, timeoutMs: number): () => Promise<unknown> {
  const log = createLogger({ format: "human", verbosity: 0 });
  const settings = parseEtcdOptions({ endpoints: [url], log });
  const { signal } = new AbortController();
  const client = new EtcdV2Client(settings);
  return api === "v3"
    ? async () => {
      using _ = await EtcdConnection.open(settings.endpoints[0]!, settings, { signal, timeoutMs });
    }
    : () => client.send("idempotent", { method: "GET", path: "/x" }, { signal, timeoutMs });
}

async function sample(settleMs: number): Promise<Sample> {
  await new Promise((resolve) => setTimeout(resolve, settleMs));
  (globalThis as { gc?: () => void }).gc?.();
  return {
    descriptors: [...Deno.readDirSync("/proc/self/fd")].length,
    heapBytes: Deno.memoryUsage().heapUsed,
  };
}
