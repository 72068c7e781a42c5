/** flanneld with one backend more. */
import { runCommand } from "../../src/app/command.ts";
import { backends } from "../../src/runtime/mod.ts";
import { toyEntry } from "./backend.ts";

Deno.exit(await runCommand(Deno.args, { backends: [...backends, toyEntry] }));
