/** The short form of the campaign `hostile-api`. @module */
import { campaignTest } from "./campaign_test_case.ts";
import { campaign } from "./hostile_api.ts";

campaignTest(
  "a cloud API that sends too much, too slowly, without end, or junk costs little",
  campaign,
);
