import { labTest } from "../lab/mod.ts";
import { runShort } from "./campaign.ts";
import { campaign } from "./soak.ts";

labTest("campaign soak", ({ signal }) => runShort(campaign, { signal }));
