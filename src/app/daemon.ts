/**
 * The composition root: opens the resources, wires them, and runs the loops until the end.
 *
 * ```text
 *   config ─┐                                        ┌─ kernel Tables   (links … routes)
 *   leases ─┴─► backend.plan() ─► desired state ─► Reconcilers ─ firewall Table
 *                                                    ├─ cloud Tables    (route entries, ENI)
 *                                                    └─ subnet file Table, once the rest is right
 * ```
 *
 * @module
 */
import type { Options } from "../cli/options.ts";
import { describeError, OperatorError } from "../errors.ts";
import { openFirewall, planRuleSets } from "../firewall/mod.ts";
import { serveHealth } from "../health/server.ts";
import { previousSubnet, renderSubnetEnv } from "../host/subnet_env.ts";
import { readSubnetFile, SubnetFileTable } from "../host/subnet_file_table.ts";
import { formatSubnet, type Lease } from "../lease/lease.ts";
import { LeaseMap } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import { Reconciler } from "../reconcile/reconciler.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";
import { LeaseKeeper } from "../store/lease_keeper.ts";
import { openRegistry } from "../store/open.ts";
import type { Registry, WatchUpdate } from "../store/registry.ts";
import type { Notifier } from "../util/notify.ts";
import { waitForNetworkConfig } from "./network.ts";
import { patiently } from "./patience.ts";
import { Readiness } from "./readiness.ts";

export interface RunDaemonOptions {
  readonly options: Options;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly notifier: Notifier;
  readonly signal: AbortSignal;
  readonly version: string;
}
