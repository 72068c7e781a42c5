import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import type { Endpoint } from "./ping.ts";
import { denoEnvironment } from "./program.ts";

/** What the sender of a stream of datagrams sees. */
export interface ProbeReport {
  readonly sent: number;
  /** Datagrams whose echo never came back. */
  readonly unanswered: number;
  /** Longest row of those, as time. */
  readonly longestGapMs: number;
}

/** What came of a stream of datagrams. */
export interface LossReport extends ProbeReport {
  /**
   * Datagrams that the network lost. Those that arrived at a process which a busy machine did not
   * let run in time, and found its socket full, do not count.
   */
  readonly lost: number;
}

/** Options of {@linkcode startLossProbe}. */
export interface LossProbeOptions {
  readonly signal: AbortSignal;
  /** Where the processes' logs go. */
  readonly directory: string;
  /** @default {1} */
  readonly intervalMs?: number;
  /** Which of the receiver's addresses. @default {to.address} */
  readonly address?: string;
}

const PORT = 7007;

/** A running stream of datagrams. Disposing ends it without a report. */
export interface LossProbe extends AsyncDisposable {
  /** Ends the stream and says what was lost. */
  stop(options: { signal: AbortSignal }): Promise<LossReport>;
}

/**
 * Sends paced datagrams from one endpoint to another, which echoes them, until stopped: to see
 * whether something that is done meanwhile loses packets.
 */
export async function startLossProbe(
  from: Endpoint,
  to: Endpoint,
  options: LossProbeOptions,
): Promise<LossProbe> {
  const { signal, directory, intervalMs = 1, address = to.address } = options;
  const overflowsBefore = await overflows([from, to], { signal });
  await using stack = new AsyncDisposableStack();
  const echo = stack.use(start(to, ["echo", address, String(PORT)], directory));
  await echo.waitForLine(/^ready$/, { signal });
  const sender = stack.use(
    start(from, ["send", address, String(PORT), String(intervalMs)], directory),
  );
  await sender.waitForLine(/^ready$/, { signal });
  const owned = stack.move();
  return {
    async stop(options) {
      sender.signal("SIGTERM");
      const line = await sender.waitForLine(/^\{/, options);
      await owned[Symbol.asyncDispose]();
      const report = JSON.parse(line) as ProbeReport;
      const overflowed = await overflows([from, to], options) - overflowsBefore;
      return { ...report, lost: Math.max(0, report.unanswered - overflowed) };
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** Datagrams dropped so far since a socket was full. */
async function overflows(
  endpoints: readonly Endpoint[],
  options: { signal: AbortSignal },
): Promise<number> {
  let sum = 0;
  for (const { namespace } of endpoints) {
    const text = await namespace.run("nstat", ["-asz", "UdpRcvbufErrors", "Udp6RcvbufErrors"], {
      signal: options.signal,
    });
    for (const [, count] of text.matchAll(/^Udp6?RcvbufErrors +(\d+)/gm)) sum += Number(count);
  }
  return sum;
}

function start(at: Endpoint, args: readonly string[], directory: string): LoggedProcess {
  const script = new URL("./udp_probe.ts", import.meta.url).pathname;
  const command = at.namespace.command(Deno.execPath(), [
    ...["run", "-A", "--cached-only", script],
    ...args,
  ]);
  const title = `${at.label}-udp-${args[0]}`;
  return startLogged(command, {
    title,
    logFile: `${directory}/${title}.log`,
    env: denoEnvironment(),
  });
}
