/** What mostly waits: each on a cloud of its own, all at the same time. */
import { labTest } from "../lab/mod.ts";
import { settleAll } from "../support/settle_all.ts";
import { tryCredentials } from "./cloud_credentials.ts";
import { FAULTS, type FaultTitle, surviveFaults } from "./cloud_fault_scenarios.ts";
import { meetLimits } from "./cloud_limits.ts";
import { watchSteadyHosts } from "./cloud_steady_hosts.ts";

labTest("keys, limits, faults of the service and steady hosts", async ({ signal }) => {
  await settleAll([
    tryCredentials({ signal }),
    meetLimits({ signal }),
    surviveFaults(Object.keys(FAULTS) as FaultTitle[], { signal }),
    watchSteadyHosts({ signal }),
  ]);
}, { timeoutMs: 240_000 });
