/** Follows the kernel's events, a flood of them a few times a second. @module */
import { Backoff, delay } from "../util/time.ts";
import type { Netlink, NetlinkEvent } from "./netlink.ts";

export interface WatchKernelOptions {
  readonly signal: AbortSignal;
  /** Takes an event, and returns whether it is relevant. */
  readonly note: (event: NetlinkEvent) => boolean;
  /** Called after events of which one at least was relevant. Must not throw. */
  readonly onChange: () => void;
  /** Called when a subscription failed; it is retried. */
  readonly onError: (error: unknown) => void;
  /** Events within this time are reported together. @default {50} */
  readonly foldMs?: number;
}

/**
 * Reports changes in the kernel, folded, until `signal` aborts; rejects with `signal.reason` then.
 * Events are hints to list again. After a time without a subscription they are `lost`. Changes made
 * through `netlink` itself are left out where the kernel tells (not those of links and forwarding
 * entries).
 */
export async function watchKernel(netlink: Netlink, options: WatchKernelOptions): Promise<never> {
  const { signal, note, onChange, onError, foldMs = 50 } = options;
  const backoff = new Backoff({ initialMs: 200, maxMs: 10_000 });
  for (;;) {
    try {
      await using events = netlink.subscribe({ signal });
      if (backoff.failures > 0 && note({ kind: "lost" })) onChange();
      for await (const batch of events) {
        backoff.reset();
        if (batch.filter(note).length === 0) continue;
        onChange();
        // Further events wait in the socket: the first is reported at once.
        await delay(foldMs, { signal });
      }
    } catch (error) {
      signal.throwIfAborted();
      onError(error);
    }
    await backoff.wait({ signal });
  }
}
