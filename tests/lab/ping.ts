import type { NetworkNamespace } from "../support/namespace.ts";

/** Something that can be pinged and can ping. */
export interface Endpoint {
  readonly label: string;
  readonly address: string;
  /** Every address, where it has several. @default {[address]} */
  readonly addresses?: readonly string[];
  readonly namespace: NetworkNamespace;
}

/** One cell of a ping matrix. */
export interface PingResult {
  readonly from: Endpoint;
  readonly to: Endpoint;
  /** The address of `to` that was pinged. */
  readonly address: string;
  /** Round trip of the answer; `undefined` if none came. */
  readonly milliseconds: number | undefined;
}

/** Options of {@linkcode ping} and {@linkcode pingMatrix}. */
export interface PingOptions {
  readonly signal: AbortSignal;
  /** Requests are sent, one every 200 ms, until one is answered or this is over. @default {1} */
  readonly seconds?: number;
  /** Bytes of payload. @default {56} */
  readonly payloadBytes?: number;
  /** Forbids fragments, so that a packet above the MTU of the path is lost. @default {false} */
  readonly dontFragment?: boolean;
}

/** How many pings run at once. */
const PARALLEL = 16;

/** Round trip of the first answer in milliseconds, or `undefined` if nothing came back. */
export async function ping(
  from: { readonly namespace: NetworkNamespace },
  address: string,
  options: PingOptions,
): Promise<number | undefined> {
  const { seconds = 1, payloadBytes = 56, dontFragment = false } = options;
  const result = await from.namespace.try("ping", [
    ...["-n", "-i", "0.2", "-W", "1", "-c", "1", "-w", String(seconds), "-s", String(payloadBytes)],
    ...(dontFragment ? ["-M", "do"] : []),
    address,
  ], { signal: options.signal, timeoutMs: 10_000 + seconds * 1000 });
  const match = /time[=<]([\d.]+) ms/.exec(result.stdout);
  return result.code === 0 && match ? Number(match[1]) : undefined;
}

/** Pings from each endpoint to each address of each other one. */
export async function pingMatrix(
  endpoints: readonly Endpoint[],
  options: PingOptions,
): Promise<PingResult[]> {
  const pairs = endpoints.flatMap((from) =>
    endpoints.filter((to) => to !== from).flatMap((to) =>
      (to.addresses ?? [to.address]).map((address) => ({ from, to, address }))
    )
  );
  const results: PingResult[] = [];
  let next = 0;
  const work = async () => {
    while (next < pairs.length) {
      const index = next++;
      const { from, address } = pairs[index]!;
      results[index] = { ...pairs[index]!, milliseconds: await ping(from, address, options) };
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
  return results;
}

/** The pairs without an answer as one line, empty if there are none. */
export function describeLosses(results: readonly PingResult[]): string {
  return results.filter(({ milliseconds }) => milliseconds === undefined)
    .map(({ from, to, address }) => {
      const named = address === to.address ? "" : ` (${address})`;
      return `${from.label} → ${to.label}${named}`;
    }).join(", ");
}
