import type { Logger } from "../log.ts";
import type { SkippedPeer } from "../state/mod.ts";

/** At most this many are logged one by one at a time. */
const LOGGED_PEERS = 10;

/** At most this many are on the status page. */
const LISTED_PEERS = 100;

/** Says once of each peer that is left out why, and lists them for the status page. */
export class SkippedPeerNotices {
  readonly #log: Logger;
  #reasons: ReadonlyMap<string, string> = new Map();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Takes the peers that the latest plan leaves out. */
  update(skipped: readonly SkippedPeer[]): void {
    const reasons = new Map<string, string>();
    for (const { key, reason } of skipped) {
      const former = reasons.get(key);
      reasons.set(key, former === undefined ? reason : `${former}; ${reason}`);
    }
    const fresh = [...reasons].filter(([key, reason]) => this.#reasons.get(key) !== reason);
    for (const [key, reason] of fresh.slice(0, LOGGED_PEERS)) {
      this.#log.warn(`Peer is left out: ${reason}`, { key });
    }
    if (fresh.length > LOGGED_PEERS) {
      this.#log.warn(`and ${fresh.length - LOGGED_PEERS} more peers are left out`);
    }
    const back = [...this.#reasons.keys()].filter((key) => !reasons.has(key));
    if (back.length > 0 && reasons.size === 0) this.#log.info("No peer is left out any more");
    this.#reasons = reasons;
  }

  /** Key to reason of some of them, and how many there are. */
  list(): { readonly count: number; readonly peers: Readonly<Record<string, string>> } {
    return {
      count: this.#reasons.size,
      peers: Object.fromEntries([...this.#reasons].slice(0, LISTED_PEERS)),
    };
  }
}
