import assert from "node:assert/strict";
import type { Endpoint } from "../lab/mod.ts";
import { run } from "../support/run.ts";

/** Options of {@linkcode transferFile}. */
export interface TransferOptions {
  readonly signal: AbortSignal;
  readonly megabytes: number;
  /** For the file. */
  readonly directory: string;
}

/** Sends a file of random bytes over TCP; it has to arrive as it was, by its SHA-256. */
export async function transferFile(
  from: Pick<Endpoint, "address" | "namespace">,
  to: Pick<Endpoint, "address" | "namespace">,
  { signal, megabytes, directory }: TransferOptions,
): Promise<void> {
  const file = `${directory}/data`;
  await run("dd", ["if=/dev/urandom", `of=${file}`, "bs=1M", `count=${megabytes}`], { signal });
  const script = new URL("./file_transfer.ts", import.meta.url).pathname;
  const deno = (...args: string[]) => ["run", "-A", "--cached-only", script, ...args];
  const options = { signal, timeoutMs: 60_000 };
  const [received] = await Promise.all([
    to.namespace.run(Deno.execPath(), deno("receive", to.address), options),
    from.namespace.run(Deno.execPath(), deno("send", to.address, file), options),
  ]);
  const expected = await run("sha256sum", [file], { signal });
  assert.equal(received.trim(), expected.split(" ")[0]);
}
