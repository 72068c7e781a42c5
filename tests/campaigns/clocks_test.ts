/** The short form of the campaign `clocks`. @module */
import { campaignTest } from "./campaign_test_case.ts";
import { campaign } from "./clocks.ts";

campaignTest(
  "wrong clocks and suspended writers neither share the office nor end a grace",
  campaign,
);
