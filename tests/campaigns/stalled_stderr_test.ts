import { labTest } from "../lab/mod.ts";
import { runShort } from "./campaign.ts";
import { campaign } from "./stalled_stderr.ts";

labTest("campaign stalled-stderr", ({ signal }) => runShort(campaign, { signal }));
