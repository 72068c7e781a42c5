/**
 * flanneld: flags, signals and exit code; everything else is in `src/app/daemon.ts`.
 *
 * Exit codes: 0 after SIGINT, SIGTERM and a command that did what it was asked for; 1 when an
 * operator is needed; 2 for a wrong command line or environment.
 *
 * @module
 */
import { runCommand } from "./src/app/command.ts";

if (import.meta.main) Deno.exit(await runCommand(Deno.args));
