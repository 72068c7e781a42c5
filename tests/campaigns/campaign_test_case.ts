/** Runs the short form of a campaign as a test. @module */
import type { Campaign } from "./campaign.ts";

/** Registers the test; the seed is fixed, so that a failure is repeatable. */
export function campaignTest(name: string, campaign: Campaign): void {
  Deno.test({
    name,
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
}
