import { delay } from "../../src/util/time.ts";
import type { Endpoint } from "./ping.ts";

/** Options of {@linkcode iperf}. */
export interface IperfOptions {
  readonly signal: AbortSignal;
  /** How long data is sent. @default {1} */
  readonly seconds?: number;
  /** Which of the receiver's addresses. @default {to.address} */
  readonly address?: string;
  /** @default as fast as it goes */
  readonly bitsPerSecond?: number;
}

/** What came of a stream of data. */
export interface IperfResult {
  /** What arrived. */
  readonly bitsPerSecond: number;
  readonly retransmits: number;
}

const PORT = "5201";

/**
 * Sends one TCP stream from one endpoint to another with iperf3.
 *
 * @throws {Error} If nothing gets through.
 */
export async function iperf(
  from: Endpoint,
  to: Endpoint,
  options: IperfOptions,
): Promise<IperfResult> {
  const { signal, seconds = 1, address = to.address } = options;
  const timeoutMs = 20_000 + seconds * 1000;
  const stop = new AbortController();
  const server = to.namespace.run("iperf3", ["-s", "-1", "-p", PORT, "-B", address], {
    signal: AbortSignal.any([signal, stop.signal]),
    timeoutMs,
  });
  server.catch(() => {/* a client that got through tells more */});
  try {
    // The server does not say when it listens, and a client that finds nobody gives up at once.
    await waitForListener(to, address, { signal });
    const text = await from.namespace.run("iperf3", [
      ...["-c", address, "-p", PORT, "-t", String(seconds), "-J", "--connect-timeout", "5000"],
      ...(options.bitsPerSecond === undefined ? [] : ["-b", String(options.bitsPerSecond)]),
    ], { signal, timeoutMs });
    const { end, error } = JSON.parse(text) as {
      error?: string;
      end: { sum_received?: { bits_per_second: number }; sum_sent?: { retransmits?: number } };
    };
    const received = end.sum_received;
    if (!received) {
      throw new Error(`Cannot send from ${from.label} to ${address}: ${error ?? "nothing came"}`);
    }
    return {
      bitsPerSecond: received.bits_per_second,
      retransmits: end.sum_sent?.retransmits ?? 0,
    };
  } finally {
    stop.abort(new DOMException("The stream is over", "AbortError"));
    await server.catch(() => {});
  }
}

async function waitForListener(
  at: Endpoint,
  address: string,
  options: { signal: AbortSignal },
): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const listing = await at.namespace.run("ss", ["-Hltn", `sport = :${PORT}`], options);
    if (listing.includes(`${address}`) || listing.includes(`[${address}]`)) return;
    await delay(50, options);
  }
  throw new Error(`Cannot measure towards ${at.label}: iperf3 does not listen there`);
}
