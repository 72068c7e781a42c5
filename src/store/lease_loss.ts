/** What a host does when another one has its subnet. @module */
import { formatSubnet } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import { BudgetedLog } from "../util/line_budget.ts";
import type { OwnLease } from "./lease_store.ts";

export interface LeaseLossOptions {
  /** Whether to take another subnet then. */
  readonly onLeaseLoss: "keep" | "reassign";
  readonly log: Logger;
}

/** Logs when another host has taken the lease, and when it is held again; until disposed. */
export function watchLeaseLoss(
  own: OwnLease,
  { onLeaseLoss, log }: LeaseLossOptions,
): Disposable {
  // Others may fight over the lease as often as they like.
  const lines = new BudgetedLog(log);
  let isTold = false;
  return own.state.subscribe((state, before) => {
    const isTaken = !state.held && state.loss === "taken";
    const wasTaken = !before.held && before.loss === "taken";
    const about = { subnet: formatSubnet(own.lease.value.subnet) };
    if (isTaken && !wasTaken) {
      isTold = lines.write(
        "error",
        `Lease lost: ${state.message}; ` +
          (onLeaseLoss === "reassign"
            ? "taking another subnet"
            : "the subnet stays as it is under running pods and this host is not ready; restart " +
              "flanneld with --on-lease-loss=reassign, or remove the other host's lease"),
        about,
      );
      if (onLeaseLoss === "reassign") own.redraw(state.message);
    } else if (wasTaken && state.held && isTold) {
      log.info("Lease is held again", about);
    }
  });
}
