/** A cluster's part of the store, and documents in it that several hosts write. @module */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Document, Documents, WriteOptions } from "../../store/documents.ts";
import type { Election } from "../../store/election.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { LeaseStore } from "../../store/lease_store.ts";

/** What a cloud's hosts keep in the store, besides their leases: documents below one folder. */
export interface ClusterStore {
  readonly folder: string;
  /** Those directly below the folder, or below `name` in it. */
  documents(name: string): Documents;
  /** This host's part in the election of the leader. */
  election(instanceId: string, log: Logger): Election;
}

/** The part of a store below `folder`. */
export function clusterStore(
  store: Pick<LeaseStore, "documents" | "election">,
  folder: string,
): ClusterStore {
  return {
    folder,
    documents: (name) => store.documents(name === "" ? folder : `${folder}/${name}`),
    election: (instance, log) =>
      store.election({
        name: `${folder}/election/writer`,
        holder: JSON.stringify({ instance }),
        log,
      }),
  };
}

/** One document, as it was last read or written here. Calls fail with `StoreError`. */
export class SharedDocument {
  readonly #documents: Documents;
  readonly #key: string;
  #known: Document | undefined;

  constructor(documents: Documents, key: string) {
    this.#documents = documents;
    this.#key = key;
  }

  get value(): string | undefined {
    return this.#known?.value;
  }

  async read(options: CallOptions): Promise<string | undefined> {
    this.#known = await this.#documents.get(this.#key, options);
    return this.value;
  }

  /** Writes `value`, with its lifetime anew; `false` if somebody else has written since. */
  async write(value: string, options: WriteOptions): Promise<boolean> {
    const written = this.#known === undefined
      ? await this.#documents.create(this.#key, value, options)
      : await this.#documents.update(this.#known, value, options);
    if (written === undefined) return false;
    this.#known = written;
    return true;
  }
}

/** What `parse` makes of a document's text; where it throws, nothing, and `warning` is logged. */
export function parseOrWarn<Parsed>(
  text: string | undefined,
  parse: (text: string) => Parsed,
  { log, warning }: { readonly log: Logger; readonly warning: string },
): Parsed | undefined {
  try {
    return text === undefined ? undefined : parse(text);
  } catch (error) {
    log.warn(warning, { error: describeError(error) });
    return undefined;
  }
}
