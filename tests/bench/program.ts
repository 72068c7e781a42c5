import { type DaemonProgram, DEFAULT_BINARY } from "../lab/mod.ts";
import type { Report } from "./report.ts";

/**
 * The compiled daemon, compiled now; where `deno compile` finds no runtime, the sources, and a note
 * that says so.
 */
export async function binaryProgram(report: Report): Promise<DaemonProgram> {
  const compile = new URL("../../dist/compile.ts", import.meta.url).pathname;
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", compile],
  }).output();
  const decoder = new TextDecoder();
  if (success) {
    report.note(decoder.decode(stdout).trim());
    return { kind: "binary", path: DEFAULT_BINARY };
  }
  const reason = decoder.decode(stderr).trim().split("\n").at(-1);
  report.note(`Measuring the sources, since the binary cannot be compiled here: ${reason}`);
  return { kind: "source" };
}
