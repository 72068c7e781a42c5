/** A cluster's part of the store. @module */
import type { Logger } from "../../log.ts";
import type { Documents } from "../../store/documents.ts";
import type { Election } from "../../store/election.ts";
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
