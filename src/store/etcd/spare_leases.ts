/**
 * Leases that a host has besides its own, as after a restore of a backup from before it moved:
 * whoever got that subnet since is cut off while the lease is here.
 *
 * @module
 */
import { parseLeaseKey } from "../../lease/codec.ts";
import { formatSubnet, type Lease } from "../../lease/lease.ts";
import { hasAddressOf, sharesSubnet } from "../../lease/ownership.ts";
import type { Logger } from "../../log.ts";
import type { Address } from "../../net/mod.ts";
import type { CallOptions } from "../errors.ts";
import type { LeaseRequest } from "../lease_store.ts";
import type { Entry, KeySpace, WatchUpdate } from "../keys/key_space.ts";

/** The own lease, and its text in the store. */
export interface OwnEntry {
  readonly lease: Lease;
  readonly value: string;
}

/**
 * Gives up further leases of this host. One whose subnet pods may use is kept, and so is one that
 * comes back, as somebody must need it.
 */
export class SpareLeases {
  readonly #space: KeySpace;
  readonly #addresses: LeaseRequest["addresses"];
  readonly #log: Logger;
  readonly #found = new Set<string>();
  /** Those that were given up, or are kept; each is judged once. */
  readonly #judged = new Set<string>();

  constructor(
    { space, addresses, log }: Pick<LeaseRequest, "addresses" | "log"> & { space: KeySpace },
  ) {
    this.#space = space;
    this.#addresses = addresses;
    this.#log = log;
  }

  /** Whether there is one that is not judged yet. */
  get isAny(): boolean {
    return this.#found.size > 0;
  }

  /** Takes note of what a watch says. Returns whether there is one to judge among it. */
  observe(update: WatchUpdate, own: OwnEntry): boolean {
    let isNew = false;
    if (update.type === "snapshot") {
      this.#found.clear();
      for (const entry of update.entries) isNew = this.#note(entry, own) || isNew;
    } else if (update.type === "events") {
      for (const event of update.events) {
        if (event.type === "put") isNew = this.#note(event.entry, own) || isNew;
        else this.#found.delete(event.key);
      }
    }
    return isNew;
  }

  async giveUp(own: () => OwnEntry, { signal }: CallOptions): Promise<void> {
    const local = await this.#addresses!({ signal });
    for (const key of [...this.#found]) {
      const spare = key === own().lease.key ? undefined : await this.#space.get(key, { signal });
      if (
        spare !== undefined && isSpare(spare, own()) && !isInUse(key, own().lease, local) &&
        await this.#space.remove(spare, { signal })
      ) {
        this.#log.warn("A further lease of this host is given up, as it serves another subnet", {
          subnet: formatSubnet(own().lease.subnet),
          further: key,
        });
      }
      this.#found.delete(key);
      if (spare !== undefined) this.#judged.add(key);
    }
  }

  #note(entry: Entry, own: OwnEntry): boolean {
    const { key } = entry;
    const isToJudge = this.#addresses !== undefined && key !== own.lease.key &&
      isSpare(entry, own) && !this.#judged.has(key);
    if (isToJudge) this.#found.add(key);
    else this.#found.delete(key);
    return isToJudge;
  }
}

/** An address alone may have been another host's, as a virtual IP; a reservation is not ours. */
function isSpare({ value, expires }: Entry, own: OwnEntry): boolean {
  const { backendV6Data, backendData = backendV6Data } = own.lease.attributes;
  return expires && value === own.value && backendData !== undefined;
}

function isInUse(key: string, own: Lease, local: readonly Address[]): boolean {
  try {
    return sharesSubnet(key, own.subnet) || hasAddressOf(local, parseLeaseKey(key));
  } catch {
    return true; // junk; the lease map counts and names it
  }
}
