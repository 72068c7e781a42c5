/**
 * The id of the store's cluster. It is in the mark of each route entry, so that clusters with the
 * same network tell their entries apart, and a store that lost everything claims no old one.
 *
 * @module
 */
import { OperatorError } from "../../errors.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { ClusterStore } from "./cluster_store.ts";

const ID_KEY = "cluster";
const ID_BYTES = 8;
const ID = /^[a-z0-9]{8,32}$/;

/** The store is another cluster's now. */
export class OtherClusterError extends Error {
  override name = "OtherClusterError";
}

/**
 * The store's cluster id; `undefined` if it has none (yet).
 *
 * @throws {OperatorError} If what the key says is no id.
 * @throws {StoreError}
 */
export async function readClusterId(
  store: ClusterStore,
  options: CallOptions,
): Promise<string | undefined> {
  const entry = await store.documents("").get(ID_KEY, options);
  if (entry === undefined) return undefined;
  const id = entry.value.trim();
  if (ID.test(id)) return id;
  throw new OperatorError(
    `Cannot use the cluster id in <etcd-prefix>/${store.folder}/${ID_KEY}: it is not 8 to 32 ` +
      "lower-case letters and digits; write the right one, or delete the key for a new one",
  );
}

/**
 * The store's cluster id, made if there is none. To be awaited before any route entry is written.
 *
 * @throws {OperatorError} If the key holds no valid id.
 * @throws {StoreError}
 */
export async function ensureClusterId(
  store: ClusterStore,
  options: CallOptions,
): Promise<string> {
  const found = await readClusterId(store, options);
  if (found !== undefined) return found;
  const id = crypto.getRandomValues(new Uint8Array(ID_BYTES)).toHex();
  const made = await store.documents("").create(ID_KEY, id, options);
  if (made !== undefined) return id;
  // Another host was first.
  const other = await readClusterId(store, options);
  if (other === undefined) throw new Error("Cannot make a cluster id: its key comes and goes");
  return other;
}

/** Makes sure that the store still has this id. @throws {OtherClusterError} @throws {StoreError} */
export async function requireClusterId(
  store: ClusterStore,
  id: string,
  options: CallOptions,
): Promise<void> {
  let found: string | undefined;
  try {
    found = await readClusterId(store, options);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
  }
  if (found !== id) throw new OtherClusterError("the cluster id in the store is another one now");
}
