import type { Logger } from "../log.ts";
import type { Notifier } from "../service_manager/notify.ts";
import type { Readiness } from "./readiness.ts";

/** Options of {@linkcode Announcer}. */
export interface AnnouncerOptions {
  readonly log: Logger;
  readonly notifier: Notifier;
  /** Called when the subnet is usable for the first time. */
  readonly onFirstReady: () => void;
}

/** Tells log and service manager of each change of readiness. */
export class Announcer {
  readonly #options: AnnouncerOptions;
  #announced = false;
  #wasReady = false;
  #status: string | undefined;

  constructor(options: AnnouncerOptions) {
    this.#options = options;
  }

  /** To be called whenever `readiness` has changed. */
  tell({ ready, reasons, remarks }: Readiness): void {
    const { log, notifier, onFirstReady } = this.#options;
    if (ready && !this.#wasReady) log.info("Ready: the subnet is usable");
    if (!ready && this.#wasReady) log.warn(`Not ready: ${reasons.join("; ")}`);
    this.#wasReady = ready;
    if (ready && !this.#announced) {
      this.#announced = true;
      notifier.ready();
      onFirstReady();
    }
    const status = ready ? ["Ready", ...remarks].join("; ") : reasons[0]!;
    if (status !== this.#status) notifier.status(status);
    this.#status = status;
  }
}
