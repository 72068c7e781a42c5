import { labTest } from "../lab/mod.ts";
import { runShort } from "./campaign.ts";
import { campaign } from "./health.ts";

labTest("campaign health", ({ signal }) => runShort(campaign, { signal }));
