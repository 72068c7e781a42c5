/**
 * Members of etcd that do not serve, each in its own way, asked again and again by both APIs: a
 * daemon that does so for days must gather neither descriptors nor memory.
 *
 * @module
 */
import { type Campaign, CampaignFailure, seededRandom } from "./campaign.ts";
import type { SubjectEndpoint, SubjectOrder, SubjectReport } from "./etcd_silent_subject.ts";

/** By so many the descriptors may differ from those after the first five attempts of each. */
const SPARE_DESCRIPTORS = 5;
/** Heap that may come with hundreds of attempts: compiled code, caches that fill once. */
const SPARE_HEAP_BYTES = 3 * 1024 * 1024;

/** A way not to serve. */
interface Silence {
  readonly scheme: "http" | "https";
  /** Starts the server; its port. */
  listen(random: () => number, stack: DisposableStack): number | Promise<number>;
}

const SILENCES: Readonly<Record<string, Silence>> = {
  stopped: { scheme: "http", listen: () => closedPort() },
  "not accepted": { scheme: "http", listen: (_, stack) => fullQueue(stack) },
  "accepted, then silent": { scheme: "http", listen: (_, stack) => accepting(stack, () => {}) },
  "accepted, then closed": {
    scheme: "http",
    listen: (_, stack) => accepting(stack, (connection) => closeQuietly(connection)),
  },
  junk: {
    scheme: "http",
    listen: (random, stack) => accepting(stack, (connection) => sendJunk(connection, random)),
  },
  "TLS stall": { scheme: "https", listen: (_, stack) => accepting(stack, () => {}) },
  "TLS closed": {
    scheme: "https",
    listen: (_, stack) => accepting(stack, (connection) => closeQuietly(connection)),
  },
  "TLS junk": {
    scheme: "https",
    listen: (random, stack) => accepting(stack, (connection) => sendJunk(connection, random)),
  },
};

export const campaign: Campaign = {
  summary: "etcd stopped, dropping, silent, talking junk: descriptors and heap stay",
  async run({ long, seed, say, signal }) {
    const random = seededRandom(seed);
    const attempts = long ? 400 : 15;
    using stack = new DisposableStack();
    const names: string[] = [];
    const endpoints: SubjectEndpoint[] = [];
    for (const [name, silence] of Object.entries(SILENCES)) {
      const port = await silence.listen(random, stack);
      for (const api of ["v3", "v2"] as const) {
        names.push(`${name}, ${api}`);
        endpoints.push({ url: `${silence.scheme}://127.0.0.1:${port}`, api });
      }
    }
    const { before, after, ends } = await runSubject({
      endpoints,
      attempts,
      timeoutMs: long ? 300 : 100,
      settleMs: long ? 12_000 : 200,
    }, signal);
    const descriptors = after.descriptors - before.descriptors;
    const heapBytes = after.heapBytes - before.heapBytes;
    names.forEach((name, index) => say(`${name}: ${ends[index]!.join(" | ")}`));
    const violations = names.filter((_, index) => ends[index]!.includes("served"))
      .map((name) => `${name}: it was taken for a member`);
    if (Math.abs(descriptors) > SPARE_DESCRIPTORS) {
      violations.push(`${descriptors} descriptors more than before`);
    }
    if (long && heapBytes > SPARE_HEAP_BYTES) {
      violations.push(`the heap grew by ${heapBytes} bytes`);
    }
    if (violations.length > 0) throw new CampaignFailure("etcd-silent", violations);
    return {
      attempts: attempts * endpoints.length,
      "descriptors more": descriptors,
      "heap growth, KiB": Math.round(heapBytes / 1024),
    };
  },
};

async function runSubject(order: SubjectOrder, signal: AbortSignal): Promise<SubjectReport> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--no-check", "-A", "--v8-flags=--expose-gc"],
      `${import.meta.dirname}/etcd_silent_subject.ts`,
      JSON.stringify(order),
    ],
    signal,
  }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Cannot run the subject: ${decoder.decode(stderr)}`);
  return JSON.parse(decoder.decode(stdout));
}

/** A port of loopback that nobody listens on. */
function closedPort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** A port whose queue of connections is full, so that the kernel drops what else comes. */
async function fullQueue(stack: DisposableStack): Promise<number> {
  const listener = stack.use(
    Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 0 } as Deno.TcpListenOptions),
  );
  const { port } = listener.addr;
  const held: Promise<Deno.TcpConn>[] = [];
  for (let i = 0; i < 4; i++) {
    const connecting = Deno.connect({ hostname: "127.0.0.1", port });
    held.push(connecting);
    const taken = await Promise.race([
      connecting.then(() => true),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300)),
    ]);
    if (!taken) break;
  }
  stack.defer(() => held.forEach((each) => each.then(closeQuietly, () => {})));
  return port;
}

/** A port that takes every connection and leaves it to `serve`. */
function accepting(stack: DisposableStack, serve: (connection: Deno.TcpConn) => void): number {
  const listener = stack.use(Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  const connections = new Set<Deno.TcpConn>();
  stack.defer(() => connections.forEach(closeQuietly));
  (async () => {
    try {
      for await (const connection of listener) {
        connections.add(connection);
        serve(connection);
        drain(connection).finally(() => connections.delete(connection));
      }
    } catch { /* closed */ }
  })();
  return listener.addr.port;
}

/** Reads until the other side ends, as a server that thinks would. */
async function drain(connection: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(4_096);
  try {
    while (await connection.read(buffer) !== null);
  } catch { /* closed */ }
  closeQuietly(connection);
}

async function sendJunk(connection: Deno.TcpConn, random: () => number): Promise<void> {
  const junk = Uint8Array.from({ length: 1 + random() * 300 }, () => random() * 256);
  try {
    await connection.write(junk);
    if (random() < 0.5) closeQuietly(connection);
  } catch { /* closed */ }
}

function closeQuietly(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch { /* It is closed already. */ }
}
