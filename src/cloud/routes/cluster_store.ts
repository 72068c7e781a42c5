import type { KeySpace, Registry } from "../../store/etcd/key_space.ts";

/** What a cloud's hosts keep in the store, besides their leases: below one folder. */
export interface ClusterStore {
  readonly folder: string;
  /** The keys directly below the folder, or below `name` in it. */
  space(name: string): KeySpace;
}

/** The part of a store below `folder`. */
export function clusterStore(registry: Pick<Registry, "space">, folder: string): ClusterStore {
  return { folder, space: (name) => registry.space(name === "" ? folder : `${folder}/${name}`) };
}
