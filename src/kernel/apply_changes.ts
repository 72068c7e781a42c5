/** Turns a Table's changes into netlink requests and collects their failures. @module */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import type { Change, FailedChange } from "../reconcile/table.ts";
import { inSlices } from "../util/slices.ts";
import type { Netlink, NetlinkRequest } from "./netlink.ts";

/** Error codes for the removal of something that does not exist. */
export const GONE: ReadonlySet<string> = new Set([
  "ESRCH", // routes
  "ENOENT", // neighbours, forwarding entries, rules
  "ENODEV", // the link itself
  "EADDRNOTAVAIL", // addresses
]);

/** One request that a change needs, and which error codes count as success. */
export interface Step {
  readonly request: NetlinkRequest;
  readonly accept?: ReadonlySet<string>;
}

/** A step of one of many changes. */
interface StepOfChange<Spec> extends Step {
  readonly change: Change<Spec>;
}

/** A change that failed, and what was asked of the kernel when it did. */
export interface FailedStep<Spec> extends FailedChange<Spec> {
  /** Missing where there was no plan. */
  readonly verb?: NetlinkRequest["verb"];
}

/** Changes planned per slice: some tenths of a millisecond. */
const STEP_CHANGES = 256;

/**
 * Makes each change by the steps that `plan` gives for it, all in as few datagrams as possible, in
 * order. A change whose `plan` throws fails with that error; one of whose steps fails, with the
 * first step's error. The others are still tried.
 */
export async function applyChanges<Spec>(
  netlink: Netlink,
  changes: readonly Change<Spec>[],
  plan: (change: Change<Spec>) => readonly Step[],
  options: { signal: AbortSignal },
): Promise<FailedStep<Spec>[]> {
  const failed = new Map<Change<Spec>, FailedStep<Spec>>();
  const steps = await inSlices(planSteps(changes, plan, failed), options);
  const errors = await netlink.change(steps.map((step) => step.request), options);
  errors.forEach((error, i) => {
    const { change, accept, request: { verb } } = steps[i]!;
    if (!error || failed.has(change)) return;
    if (error instanceof NetlinkError && accept?.has(error.code)) return;
    failed.set(change, { change, error, verb });
  });
  return [...failed.values()];
}

/** The steps of all `changes` but those for which there is no plan, which are noted in `failed`. */
function* planSteps<Spec>(
  changes: readonly Change<Spec>[],
  plan: (change: Change<Spec>) => readonly Step[],
  failed: Map<Change<Spec>, FailedStep<Spec>>,
): Generator<void, StepOfChange<Spec>[]> {
  const steps: StepOfChange<Spec>[] = [];
  let count = 0;
  for (const change of changes) {
    if (++count % STEP_CHANGES === 0) yield;
    try {
      for (const step of plan(change)) steps.push({ ...step, change });
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      failed.set(change, { change, error });
    }
  }
  return steps;
}

/** Runs `resolve`, a look-up of links, and names the request in its error. */
export function resolving<T>(describe: () => string, resolve: () => T): T {
  try {
    return resolve();
  } catch (cause) {
    throw new Error(
      `Cannot ${describe()}: ${cause instanceof Error ? cause.message : cause}`,
      { cause },
    );
  }
}
