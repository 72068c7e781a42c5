import type { Lease } from "./lease.ts";
import type { LeaseMap } from "./lease_map.ts";

/** Which leases have changed: those of these keys, or maybe all. */
export type ChangedLeases = ReadonlySet<string> | "all";

/** The other hosts' leases, as they are at the moment. */
export interface Peers {
  readonly size: number;
  get(key: string): Lease | undefined;
  [Symbol.iterator](): IteratorObject<Lease>;
}

/** The leases of `leases` that are not `own`'s. */
export function peersOf(
  leases: Pick<LeaseMap, "size" | "get" | "leases">,
  own: () => Pick<Lease, "key">,
): Peers {
  return {
    get size() {
      return leases.size - (leases.get(own().key) ? 1 : 0);
    },
    get: (key) => key === own().key ? undefined : leases.get(key),
    [Symbol.iterator]() {
      const { key } = own();
      return leases.leases().filter((lease) => lease.key !== key);
    },
  };
}
