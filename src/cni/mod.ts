/** The CNI plug-in as a process, with its standard input and output. @module */
import { writeAll } from "../util/write_all.ts";
import { runPlugin } from "./plugin.ts";

const ABOUT =
  `flannel is a CNI plug-in, to be run by a container runtime: CNI_COMMAND is not set.\n` +
  `CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n`;

/** Serves one call; returns the exit code. */
export async function servePlugin(): Promise<number> {
  const environment = Deno.env.toObject();
  if (!environment["CNI_COMMAND"]) {
    await writeAll(Deno.stderr, new TextEncoder().encode(ABOUT));
    return 0;
  }
  const { code, stdout } = await runPlugin({
    environment,
    readInput: () => new Response(Deno.stdin.readable).text(),
    signal: new AbortController().signal, // the runtime ends us by a signal
  });
  await writeAll(Deno.stdout, new TextEncoder().encode(stdout));
  return code;
}
