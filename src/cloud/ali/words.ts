/** What messages call things of Alibaba Cloud. @module */
import type { RouteWords } from "../routes/provider.ts";

/** The quota of entries per table, as Quota Center names it. */
export const ROUTE_QUOTA = "vpc_quota_route_entrys_num";

/** What messages call things of Alibaba Cloud. */
export const WORDS: RouteWords = {
  waitingForRate: "Waiting for Alibaba Cloud's rate limit",
  service: "the VPC service",
  raiseQuota: `raise the quota ${ROUTE_QUOTA}`,
  rights: 'docs/install-ecs.md, "RAM policy"',
};
