/** The Table of checksum offload on own links. @module */
import { Ethtool } from "../../ffi/libc/ethtool.ts";
import { SystemCallError } from "../../ffi/libc/errors.ts";
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import type { OffloadSpec } from "../state/mod.ts";

export interface OffloadTableOptions {
  /** The links to read: those in the desired state. */
  readonly links: () => Iterable<string>;
  /** File of another network namespace to work in, such as `/run/netns/x`. */
  readonly namespace?: string;
}

const offloadKind: Kind<OffloadSpec> = {
  id: "offload",
  name: "offload",
  key: ({ link }) => link,
  equal: (desired, actual) => desired.txChecksum === actual.txChecksum,
  owns: () => true,
  format: ({ link, txChecksum }) => `${link} tx-checksumming ${txChecksum ? "on" : "off"}`,
};

/**
 * Checksum offload of own links (`ethtool -K <link> tx on|off`). It goes with the link, so
 * nothing is removed.
 */
export function createOffloadTable(options: OffloadTableOptions): Table<OffloadSpec> {
  return new OffloadTable(options);
}

class OffloadTable implements Table<OffloadSpec> {
  readonly kind = offloadKind;
  readonly #options: OffloadTableOptions;

  constructor(options: OffloadTableOptions) {
    this.#options = options;
  }

  list({ signal }: { signal: AbortSignal }): Promise<readonly OffloadSpec[]> {
    signal.throwIfAborted();
    const links = [...this.#options.links()];
    if (links.length === 0) return Promise.resolve([]);
    using ethtool = Ethtool.open(this.#options);
    const found: OffloadSpec[] = [];
    for (const link of links) {
      try {
        found.push({ link, txChecksum: ethtool.txChecksum(link) });
      } catch (error) {
        if (!(error instanceof SystemCallError) || error.code !== "ENODEV") throw error;
      }
    }
    return Promise.resolve(found);
  }

  apply(
    changes: readonly Change<OffloadSpec>[],
    { signal }: { signal: AbortSignal },
  ): Promise<readonly FailedChange<OffloadSpec>[]> {
    signal.throwIfAborted();
    using ethtool = Ethtool.open(this.#options);
    const failed: FailedChange<OffloadSpec>[] = [];
    for (const change of changes) {
      if (change.op === "remove") continue;
      const { link, txChecksum } = change.desired;
      try {
        ethtool.setTxChecksum(link, txChecksum);
      } catch (cause) {
        if (!(cause instanceof SystemCallError)) throw cause;
        const error = new Error(`Cannot set checksum offload of ${link}`, { cause });
        failed.push({ change, error });
      }
    }
    return Promise.resolve(failed);
  }
}
