import type { Lab } from "../lab/mod.ts";

/** Runs `lease_writer.ts` beside etcd; answers what it printed. */
export async function writeLeases(
  lab: Lab,
  args:
    | readonly [action: "fill" | "empty" | "flap" | "touch", count: number, backend?: "vxlan"]
    | readonly [
      action: "churn" | "grow",
      count: number,
      backend: "vxlan",
      first: number,
      periodMs: number,
    ],
  signal: AbortSignal,
): Promise<string> {
  const [member] = lab.etcd.members;
  const script = new URL("lease_writer.ts", import.meta.url).pathname;
  const [action, count, ...rest] = args;
  const command = ["run", "-A", "--cached-only", script, action, member!.endpoint, `${count}`];
  const text = await member!.namespace.run(Deno.execPath(), [
    ...command,
    ...rest.map(String),
  ], {
    signal,
    timeoutMs: 300_000,
  });
  return text.trim();
}
