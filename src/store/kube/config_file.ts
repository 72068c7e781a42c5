/** The network config in a file, which a ConfigMap is mounted as. @module */
import { delay } from "../../util/time.ts";
import type { ConfigSource } from "../lease_store.ts";
import { StoreError } from "../errors.ts";
import { describeError } from "../../errors.ts";

/** How often the file is looked at. The kubelet itself brings a change after a minute. */
const LOOK_MS = 5_000;

/** The config in the file at `path`. */
export function configFile(path: string, { lookMs = LOOK_MS } = {}): ConfigSource {
  async function read(): Promise<string | undefined> {
    try {
      return await Deno.readTextFile(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      const message = describeError(error, `Cannot read the network config ${path}`);
      throw new StoreError("unavailable", message, { cause: error });
    }
  }
  return {
    read: async ({ signal }) => {
      signal.throwIfAborted();
      return await read();
    },
    async *follow({ signal }) {
      let known: { readonly text: string | undefined } | undefined;
      while (!signal.aborted) {
        // A file that cannot be read for a moment is no change.
        const text = await read().catch(() => known?.text);
        if (known === undefined || known.text !== text) {
          known = { text };
          yield text;
        }
        await delay(lookMs, { signal }).catch(() => {});
      }
    },
    explainMissing: (example) =>
      Promise.resolve(
        `There is no network config: ${path} is missing; mount the ConfigMap kube-flannel-cfg ` +
          `there, or write a config such as ${example}`,
      ),
  };
}
