/** The short form of the campaign `clusters`. @module */
import { campaignTest } from "./campaign_test_case.ts";
import { campaign } from "./clusters.ts";

campaignTest("clusters that share a VPC leave each other's route entries alone", campaign);
