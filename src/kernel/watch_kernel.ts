/** Folds netlink events into the set of tables that changed. @module */
import { Backoff, delay } from "../util/time.ts";
import type { Netlink, NetlinkEvent, NetlinkEventKind } from "./netlink.ts";

export interface WatchKernelOptions {
  readonly signal: AbortSignal;
  /** Called with the tables that may have changed since the last call. Must not throw. */
  readonly onChange: (kinds: ReadonlySet<NetlinkEventKind>) => void;
  /** The tables to watch: on a busy host, neighbours change all the time. @default all */
  readonly kinds?: readonly NetlinkEventKind[];
  /** Filters events, for example by link. @default all are relevant */
  readonly isRelevant?: (event: Exclude<NetlinkEvent, { kind: "lost" }>) => boolean;
  /** Called on lost events, before `onChange`. */
  readonly onLost?: () => void;
  /** Events within this time are reported together. @default {50} */
  readonly foldMs?: number;
  /** Called when a subscription failed; it is retried. */
  readonly onError?: (error: unknown) => void;
}

/** Every table that can be watched. */
export const WATCHED_KINDS: readonly NetlinkEventKind[] = [
  "link",
  "address",
  "route",
  "neighbor",
  "fdb",
  "rule",
];

/**
 * Reports which of the kernel's tables change, folded, until `signal` aborts; rejects with
 * `signal.reason` then. Events are hints to list again. After lost events, or a time without a
 * subscription, everything is reported as changed. Changes made through `netlink` itself are left
 * out where the kernel tells (not those of links and forwarding entries).
 */
export async function watchKernel(netlink: Netlink, options: WatchKernelOptions): Promise<never> {
  const { signal, onChange, isRelevant, onError } = options;
  const kinds = options.kinds ?? WATCHED_KINDS;
  const foldMs = options.foldMs ?? 50;
  const backoff = new Backoff({ initialMs: 200, maxMs: 10_000 });
  for (;;) {
    try {
      await using events = netlink.subscribe({ signal, kinds });
      if (backoff.failures > 0) {
        options.onLost?.();
        onChange(new Set(kinds));
      }
      for await (const batch of events) {
        backoff.reset();
        const changed = new Set<NetlinkEventKind>();
        for (const event of batch) {
          if (event.kind === "lost") {
            options.onLost?.();
            kinds.forEach((kind) => changed.add(kind));
          } else if (!isRelevant || isRelevant(event)) changed.add(event.kind);
        }
        if (changed.size === 0) continue;
        onChange(changed);
        // Further events wait in the socket: the first is reported at once, a flood of them a few
        // times a second.
        await delay(foldMs, { signal });
      }
    } catch (error) {
      signal.throwIfAborted();
      onError?.(error);
    }
    await backoff.wait({ signal });
  }
}
