import { runShort } from "./campaign.ts";
import { campaign } from "./fuzz.ts";

Deno.test("campaign fuzz", () => runShort(campaign, { signal: AbortSignal.timeout(120_000) }));
