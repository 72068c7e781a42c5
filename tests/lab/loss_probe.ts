import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import type { Endpoint } from "./ping.ts";
import { denoEnvironment } from "./program.ts";

/** What came of a stream of datagrams. */
export interface LossReport {
  readonly sent: number;
  /** Datagrams whose echo never came back. */
  readonly lost: number;
  /** Longest row of lost ones, as time. */
  readonly longestGapMs: number;
}

/** Options of {@linkcode startLossProbe}. */
export interface LossProbeOptions {
  readonly signal: AbortSignal;
  /** Where the processes' logs go. */
  readonly directory: string;
  /** @default {1} */
  readonly intervalMs?: number;
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
  const { signal, directory, intervalMs = 1 } = options;
  await using stack = new AsyncDisposableStack();
  const echo = stack.use(start(to, ["echo", String(PORT)], directory));
  await echo.waitForLine(/^ready$/, { signal });
  const sender = stack.use(
    start(from, ["send", to.address, String(PORT), String(intervalMs)], directory),
  );
  await sender.waitForLine(/^ready$/, { signal });
  const owned = stack.move();
  return {
    async stop(options) {
      sender.signal("SIGTERM");
      const line = await sender.waitForLine(/^\{/, options);
      await owned[Symbol.asyncDispose]();
      return JSON.parse(line) as LossReport;
    },
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
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
