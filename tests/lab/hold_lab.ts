/**
 * Opens a lab, prints its name and directory, and holds it until killed; for the tests of what
 * happens then.
 *
 * @module
 */
import { openLab } from "./lab.ts";

await using lab = await openLab({ signal: new AbortController().signal });
await Deno.stdout.write(new TextEncoder().encode(`${lab.name} ${lab.directory}\n`));
await new Promise((resolve) => setTimeout(resolve, 600_000));
