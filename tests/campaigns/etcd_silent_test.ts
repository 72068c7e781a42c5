import { runShort } from "./campaign.ts";
import { campaign } from "./etcd_silent.ts";

Deno.test({
  name: "campaign etcd-silent",
  fn: () => runShort(campaign, { signal: AbortSignal.timeout(60_000) }),
  // A connection that nobody accepts is tried until the kernel gives up.
  sanitizeOps: false,
  sanitizeResources: false,
});
