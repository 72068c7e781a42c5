/** Reports each change of readiness to the log and the service manager. @module */
import type { Logger } from "../log.ts";
import type { Notifier } from "../service_manager/notify.ts";
import { type Readiness, reasonsOf, remarksOf } from "./readiness.ts";

export interface AnnounceOptions {
  readonly log: Logger;
  readonly notifier: Notifier;
  /** Called when the subnet is usable for the first time. */
  readonly onFirstReady: () => void;
}

/** Follows `readiness` until disposed. */
export function announceReadiness(readiness: Readiness, options: AnnounceOptions): Disposable {
  const { log, notifier, onFirstReady } = options;
  let isAnnounced = false;
  let wasReady = false;
  let reported: string | undefined;
  return readiness.statuses.subscribe((statuses) => {
    const reasons = reasonsOf(statuses);
    const ready = reasons.length === 0;
    if (ready && !wasReady) log.info("Ready: the subnet is usable");
    if (!ready && wasReady) log.warn(`Not ready: ${reasons.join("; ")}`);
    wasReady = ready;
    if (ready && !isAnnounced) {
      isAnnounced = true;
      notifier.ready();
      onFirstReady();
    }
    const status = ready ? ["Ready", ...remarksOf(statuses)].join("; ") : reasons[0]!;
    if (status !== reported) notifier.status(status);
    reported = status;
  });
}
