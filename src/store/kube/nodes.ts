/** Reads, follows and patches Node objects. @module */
import * as v from "valibot";
import type { CallOptions } from "../errors.ts";
import {
  type AnnotationNames,
  isManaged,
  type KubeNode,
  parseNode,
  trimNode,
} from "./annotations.ts";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./error.ts";
import { followObjects, type FollowTiming, type KubeObject } from "./follow.ts";

/** Full nodes read at a time, of those that came with one event. */
const READ_AT_A_TIME = 8;

/** What {@linkcode NodeApi.follow} yields: `undefined` for a node that is gone. */
export type NodeUpdate =
  | { readonly type: "snapshot"; readonly nodes: readonly KubeNode[] }
  | {
    readonly type: "events";
    readonly events: readonly { readonly name: string; readonly node: KubeNode | undefined }[];
  }
  | { readonly type: "disconnected"; readonly error: Error };

/** Options of {@linkcode NodeApi}. */
export interface NodeApiOptions {
  readonly client: KubeClient;
  readonly names: AnnotationNames;
  readonly timing?: FollowTiming | undefined;
}

const CONDITION = "NetworkUnavailable";
const conditions = v.object({
  status: v.nullish(v.object({
    conditions: v.nullish(v.array(v.object({
      type: v.string(),
      status: v.string(),
      reason: v.nullish(v.string()),
      lastTransitionTime: v.nullish(v.string()),
    }))),
  })),
});

/** The nodes of a cluster. */
export class NodeApi {
  readonly #options: NodeApiOptions;

  constructor(options: NodeApiOptions) {
    this.#options = options;
  }

  get names(): AnnotationNames {
    return this.#options.names;
  }

  /** A node; `undefined` if there is none of this name. */
  async get(name: string, options: CallOptions & { readonly since?: string }) {
    const raw = await this.#read(name, options);
    return raw === undefined ? undefined : parseNode(raw, this.names);
  }

  /**
   * Writes annotations; `null` removes one. Returns the node as it is then, `undefined` if it is
   * gone, or another one of that name. By `nodes/status`, as upstream's rights allow.
   */
  async annotate(
    { name, uid }: Pick<KubeNode, "name" | "uid">,
    annotations: Readonly<Record<string, string | null>>,
    options: CallOptions,
  ): Promise<KubeNode | undefined> {
    const raw = await this.#patch(name, { metadata: { uid, annotations } }, options);
    return raw === undefined ? undefined : parseNode(raw, this.names);
  }

  /** Says that the node's network is there. Returns whether there is such a node. */
  async setNetworkAvailable(
    { name, uid }: Pick<KubeNode, "name" | "uid">,
    options: CallOptions,
  ): Promise<boolean> {
    const found = v.safeParse(conditions, await this.#read(name, options));
    if (!found.success) return false;
    const now = `${new Date(this.#options.client.serverNow).toISOString().slice(0, 19)}Z`;
    const former = found.output.status?.conditions?.find(({ type }) => type === CONDITION);
    const isSame = former?.status === "False";
    if (isSame && former.reason === "FlannelIsUp") return true;
    const condition = {
      type: CONDITION,
      status: "False",
      reason: "FlannelIsUp",
      message: "Flannel is running on this node",
      lastTransitionTime: isSame && former.lastTransitionTime ? former.lastTransitionTime : now,
      lastHeartbeatTime: now,
    };
    const body = { metadata: { uid }, status: { conditions: [condition] } };
    return await this.#patch(name, body, options) !== undefined;
  }

  /**
   * Follows all nodes: what of them matters, then each change of that. Heartbeats of kubelets
   * yield nothing. Changes are told of metadata; a node's CIDRs never change, so they are read once.
   */
  async *follow(
    { signal, own }: CallOptions & { readonly own: string },
  ): AsyncGenerator<NodeUpdate> {
    const { client, timing } = this.#options;
    const known = new Map<string, KubeNode>();
    const updates = followObjects(client, {
      ...{ path: "/api/v1/nodes", probe: own, metadataOnly: true, signal },
      trim: (object) => trimNode(object, this.names),
      ...(timing ? { timing } : {}),
    });
    for await (const update of updates) {
      if (update.type === "disconnected") {
        yield update;
      } else if (update.type === "snapshot") {
        known.clear();
        for (const object of update.objects) {
          const node = parseNode(object, this.names);
          if (node !== undefined) known.set(node.name, node);
        }
        yield { type: "snapshot", nodes: [...known.values()] };
      } else {
        const changes = await this.#readChanges(update.events, known, { own, signal });
        const events = [...changes].filter(([name, node]) => !sameNode(known.get(name), node));
        for (const [name, node] of events) {
          if (node === undefined) known.delete(name);
          else known.set(name, node);
        }
        // An empty one says that the outage is over.
        if (events.length > 0 || update.events.length === 0) {
          yield { type: "events", events: events.map(([name, node]) => ({ name, node })) };
        }
      }
    }
  }

  /** The last state of each node that events tell of. */
  async #readChanges(
    events: readonly { readonly type: "put" | "delete"; readonly object: KubeObject }[],
    known: ReadonlyMap<string, KubeNode>,
    { own, signal }: CallOptions & { readonly own: string },
  ): Promise<Map<string, KubeNode | undefined>> {
    const changes = new Map<string, KubeNode | undefined>();
    const incomplete = new Map<string, string>();
    for (const { type, object } of events) {
      const { name, uid, resourceVersion } = object.metadata;
      incomplete.delete(name);
      const former = changes.get(name) ?? known.get(name);
      const cidrs = former?.uid === uid ? former.podCidrs : undefined;
      const node = type === "delete" ? undefined : parseNode(object, this.names, cidrs);
      changes.set(name, node);
      const isNeeded = node !== undefined && node.podCidrs === undefined &&
        (isManaged(node, this.names) || name === own);
      if (isNeeded) incomplete.set(name, resourceVersion);
    }
    const toRead = [...incomplete];
    for (let at = 0; at < toRead.length; at += READ_AT_A_TIME) {
      await Promise.all(
        toRead.slice(at, at + READ_AT_A_TIME).map(async ([name, since]) => {
          const node = await this.get(name, { since, signal });
          // One that is gone, or another by now: its event comes.
          if (node?.uid === changes.get(name)?.uid) changes.set(name, node);
        }),
      );
    }
    return changes;
  }

  async #read(
    name: string,
    { since, signal }: CallOptions & { readonly since?: string },
  ): Promise<unknown> {
    try {
      return await this.#options.client.request({
        what: `get nodes/${name}`,
        path: `/api/v1/nodes/${encodeURIComponent(name)}`,
        query: { resourceVersion: since },
      }, { signal });
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw error;
    }
  }

  async #patch(name: string, body: unknown, options: CallOptions): Promise<unknown> {
    try {
      return await this.#options.client.request({
        what: `patch nodes/${name}/status`,
        method: "PATCH",
        path: `/api/v1/nodes/${encodeURIComponent(name)}/status`,
        body,
      }, options);
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      // 422: the name is that of another object by now, whose uid is immutable.
      const isGone = error.status === 404 || error.status === 409 ||
        (error.status === 422 && /uid/.test(error.message));
      if (isGone) return undefined;
      throw error;
    }
  }
}

function sameNode(a: KubeNode | undefined, b: KubeNode | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.uid === b.uid && String(a.podCidrs) === String(b.podCidrs) &&
    JSON.stringify(a.annotations) === JSON.stringify(b.annotations);
}
