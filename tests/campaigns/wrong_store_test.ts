/** The short form of the campaign `wrong-store`. @module */
import { campaignTest } from "./campaign_test_case.ts";
import { campaign } from "./wrong_store.ts";

campaignTest("a store that forgets costs no running instance its route", campaign);
