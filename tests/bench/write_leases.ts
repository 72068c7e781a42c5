import type { Lab } from "../lab/mod.ts";

/** Runs `lease_writer.ts` beside etcd; answers what it printed. */
export async function writeLeases(
  lab: Lab,
  args: readonly [action: "fill" | "empty" | "flap" | "touch", count: number, backend?: "vxlan"],
  signal: AbortSignal,
): Promise<string> {
  const [member] = lab.etcd.members;
  const script = new URL("lease_writer.ts", import.meta.url).pathname;
  const [action, count, backend] = args;
  const command = ["run", "-A", "--cached-only", script, action, member!.endpoint, `${count}`];
  const text = await member!.namespace.run(Deno.execPath(), [
    ...command,
    ...(backend ? [backend] : []),
  ], {
    signal,
    timeoutMs: 120_000,
  });
  return text.trim();
}
