/**
 * sd_notify(3) and the watchdog. Deno has datagrams over unix sockets behind an unstable flag only,
 * and none to abstract addresses; hence libc, which works alike in sources and compiled.
 *
 * @module
 */
import { Libc } from "../../ffi/libc/open.ts";
import { unixAddress, UnixSender } from "../../ffi/libc/unix_socket.ts";
import { redact } from "../secret.ts";

/** Reports the daemon's state to the service manager. No call throws. */
export interface Notifier extends Disposable {
  /** Why nothing is sent although a socket was named; for the log. */
  readonly problem: string | undefined;
  /** `READY=1`: start-up is complete. Returns whether the service manager took it. */
  ready(): boolean;
  /** `STATUS=…`: one line for `systemctl status`; secrets are redacted. */
  status(text: string): boolean;
  /** `STOPPING=1`: the daemon is shutting down. */
  stopping(): boolean;
  /** `WATCHDOG=1`: the daemon is not stuck. */
  alive(): boolean;
}

/** How long a full queue of the service manager may hold up the daemon, per message. */
const SEND_WAIT_MS = 200;
const MAX_STATUS_CHARS = 500;
/** Longer timers would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Opens the notification socket at `socketPath`, the value of `NOTIFY_SOCKET`: a path, or `@` and
 * a name in the abstract namespace (sd_notify(3)). Without it, or where it cannot be used, the
 * notifier does nothing.
 */
export function openNotifier(socketPath: string | undefined): Notifier {
  if (socketPath === undefined || socketPath === "") return makeNotifier(() => false);
  const address = unixAddress(socketPath);
  if (address === undefined) {
    return makeNotifier(() => false, {
      problem: "Cannot notify the service manager: " +
        `NOTIFY_SOCKET is neither a path nor "@" and a name, of at most 107 bytes`,
    });
  }
  try {
    using stack = new DisposableStack();
    const libc = stack.use(Libc.open());
    const sender = stack.use(new UnixSender(libc, address, SEND_WAIT_MS));
    const kept = stack.move();
    return makeNotifier((text) => sender.send(text), { close: () => kept.dispose() });
  } catch (error) {
    return makeNotifier(() => false, {
      problem: `Cannot notify the service manager: ${error instanceof Error ? error.message : ""}`,
    });
  }
}

type Send = (text: string) => boolean;

function makeNotifier(
  send: Send,
  { problem, close }: { problem?: string; close?: () => void } = {},
): Notifier {
  return {
    problem,
    ready: () => send("READY=1"),
    status(text) {
      // deno-lint-ignore no-control-regex -- a line feed would start another assignment
      const line = redact(text).replaceAll(/[\u0000-\u001f\u007f]+/g, " ");
      return send(`STATUS=${line.slice(0, MAX_STATUS_CHARS)}`);
    },
    stopping: () => send("STOPPING=1"),
    alive: () => send("WATCHDOG=1"),
    [Symbol.dispose]: () => close?.(),
  };
}

/**
 * Pings the service manager's watchdog, where enabled (`WatchdogSec=`, sd_watchdog_enabled(3)), as
 * long as the event loop turns: three times within the limit. Ends when disposed.
 */
export function feedWatchdog(
  notifier: Notifier,
  environment: Readonly<Record<string, string | undefined>>,
  pid: number = Deno.pid,
): Disposable {
  const { WATCHDOG_USEC: limit = "", WATCHDOG_PID: meant = "" } = environment;
  const limitMs = /^\d{1,15}$/.test(limit) ? Number(limit) / 1_000 : 0;
  if (limitMs === 0 || (meant !== "" && meant !== String(pid))) return { [Symbol.dispose]() {} };
  notifier.alive();
  const timer = setInterval(
    () => notifier.alive(),
    Math.min(Math.max(1, limitMs / 3), LONGEST_TIMER_MS),
  );
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
