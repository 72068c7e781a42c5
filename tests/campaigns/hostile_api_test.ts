/** The short form of the campaign `hostile-api`. @module */
import { campaign } from "./hostile_api.ts";

Deno.test({
  name: "a cloud API that sends too much, too slowly, without end, or junk costs little",
  // httpx leaves an unreferenced timer behind when a connection is dropped; it ends by itself.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    await campaign.run({
      long: false,
      seed: 1,
      say: () => {},
      signal: AbortSignal.timeout(120_000),
    });
  },
});
