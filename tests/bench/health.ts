import type { NetworkNamespace } from "../support/namespace.ts";

/** The longest that a health server in `namespace` took to answer within `milliseconds`. */
export async function longestAnswer(
  namespace: NetworkNamespace,
  port: number,
  milliseconds: number,
  { signal }: { signal: AbortSignal },
): Promise<number> {
  const script = new URL("./health_probe.ts", import.meta.url).pathname;
  const text = await namespace.run(Deno.execPath(), [
    ...["run", "-A", "--cached-only", script],
    ...[`http://127.0.0.1:${port}/healthz`, String(milliseconds)],
  ], { signal });
  return Number(text);
}
