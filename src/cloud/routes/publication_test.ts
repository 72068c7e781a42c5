import assert from "node:assert/strict";
import { encodeHosts, shardOf } from "./cluster_state.ts";
import type { Documents, DocumentUpdate } from "../../store/documents.ts";
import { ClusterFollower } from "./publication.ts";
import type { LeaseStore } from "../../store/lease_store.ts";
import { clusterStore } from "./cluster_store.ts";
import { SILENT } from "../../../tests/support/log.ts";

/** A store whose first answers are waited for, and that counts who follows each of its documents. */
class SlowStore {
  readonly watches: string[] = [];
  readonly #answers = new Map<string, PromiseWithResolvers<DocumentUpdate>>();

  answer(name: string, update: DocumentUpdate): void {
    this.#answerOf(name).resolve(update);
  }

  documents(name: string): Documents {
    const store = this as SlowStore;
    const follow = async function* (_key: string, { signal }: { signal: AbortSignal }) {
      store.watches.push(name);
      const aborted = new Promise<undefined>((resolve) =>
        signal.addEventListener("abort", () => resolve(undefined), { once: true })
      );
      const update = await Promise.race([store.#answerOf(name).promise, aborted]);
      if (update !== undefined) yield update;
      await aborted;
    };
    return { follow } as unknown as Documents;
  }

  #answerOf(name: string): PromiseWithResolvers<DocumentUpdate> {
    const known = this.#answers.get(name) ?? Promise.withResolvers<DocumentUpdate>();
    this.#answers.set(name, known);
    return known;
  }
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 0));

Deno.test("ClusterFollower follows a shard through a storm of leases, and another one's at once", async () => {
  const store = new SlowStore();
  const stop = new AbortController();
  const [key, other] = ["10.24.1.0-24", "10.24.2.0-24"];
  assert.notEqual(shardOf(key), shardOf(other));
  let own = key;
  const follower = new ClusterFollower({
    store: clusterStore(store as unknown as LeaseStore, "ali-vpc"),
    leaseKey: () => own,
    onChange: () => {},
    log: SILENT,
  });
  const watches = () => store.watches.filter((name) => name.includes("hosts"));
  follower.leaseChanged();
  const running = follower.run({ signal: stop.signal });
  // Other hosts come while the store has not answered yet.
  for (let n = 0; n < 5; n++) {
    await settle();
    follower.leaseChanged();
  }
  assert.deepEqual(watches(), [`ali-vpc/hosts-${shardOf(key)}`]);

  own = other;
  follower.leaseChanged();
  await settle();
  assert.deepEqual(watches().slice(1), [`ali-vpc/hosts-${shardOf(other)}`]);
  const status = { instanceId: "i-1", state: "routed", reason: undefined, checkOff: true } as const;
  const value = encodeHosts("7", [[other, status]]);
  store.answer(`ali-vpc/hosts-${shardOf(other)}`, {
    type: "current",
    document: { key: "doc", value, version: "1" },
  });
  await settle();
  assert.deepEqual(follower.own, status);
  stop.abort();
  await running;
});
