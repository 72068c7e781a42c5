/**
 * flanneld: flags, signals and exit code; everything else is in `src/app/daemon.ts`. Under the name
 * `flannel`, or as `flanneld cni`, it is the CNI plug-in, which loads nothing of the daemon.
 *
 * Exit codes: 0 after SIGINT, SIGTERM and a command that did what it was asked for; 1 when an
 * operator is needed; 2 for a wrong command line or environment.
 *
 * @module
 */
import { basename } from "node:path";
import process from "node:process";

if (import.meta.main) {
  const isPlugin = basename(process.argv0) === "flannel" ||
    (Deno.args.length === 1 && Deno.args[0] === "cni");
  Deno.exit(
    isPlugin
      ? await (await import("./src/cni/mod.ts")).servePlugin()
      : await (await import("./src/app/command.ts")).runCommand(Deno.args),
  );
}
