import { labTest } from "../lab/mod.ts";
import { runShort } from "./campaign.ts";
import { campaign } from "./syscall_kill.ts";

labTest("campaign syscall-kill", ({ signal }) => runShort(campaign, { signal }), {
  needs: ["strace"],
  timeoutMs: 240_000,
});
