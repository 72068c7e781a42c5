/** What routes need to know of a backend, whichever cloud it is for. @module */
import type { Lease } from "../../lease/lease.ts";
import type { CloudInstance } from "./provider.ts";
import type { Overflow } from "./table_quota.ts";

export interface CloudRoutesConfig {
  /** How often entries are checked. */
  readonly resyncSeconds: number;
  /** `ignore` leaves the interfaces' source/destination checks to the operator. */
  readonly sourceDestCheck: "disable" | "ignore";
  readonly overflow: Overflow;
  /** Entries that each table may hold; absent: what the cloud is found to allow. */
  readonly routeQuota?: number;
  /** How long an entry stays after its lease has ended. */
  readonly routeGraceSeconds: number;
}

/**
 * What a host says in its lease about its instance; `undefined` where it says nothing, as upstream's
 * do, and a reason where that cannot be read.
 */
export type ReadClaim = (
  lease: Pick<Lease, "attributes">,
) => CloudInstance | string | undefined;
