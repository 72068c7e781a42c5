import { planAll } from "../support/plan_all.ts";
import { aliVpc } from "../../src/backends/ali_vpc.ts";
import type { AliVpcConfig } from "../../src/backends/ali_vpc.ts";
import { type AliCloud, type AliVpcOptions, identifyAliVpc } from "../../src/cloud/ali/identify.ts";
import type { Clock } from "../../src/cloud/routes/provider.ts";
import {
  makeChecks,
  type NamedInterface,
  type SourceDestCheckTable,
} from "../../src/cloud/routes/source_dest_check.ts";
import type { Lease } from "../../src/lease/lease.ts";
import type { LogFields, Logger, LogLevel } from "../../src/log.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { Reconciler } from "../../src/reconcile/reconciler.ts";
import { roundJson } from "../../src/status/json.ts";
import type { SourceDestCheckSpec } from "../../src/state/mod.ts";
import { delay } from "../../src/util/time.ts";
import { EXAMPLE } from "../simulator/example.ts";
import type { RequestRecord, Simulator } from "../simulator/mod.ts";
import { CLUSTER_ID, openOwnWriter, type OwnWriter } from "../support/own_writer.ts";

export const NETWORK = Prefix.parse("10.24.0.0/16");
export { CLUSTER_ID };

/** A logger that keeps its lines. */
export class LineLog implements Logger {
  readonly lines: string[] = [];

  #write(level: LogLevel, message: string, fields: LogFields = {}): void {
    const rest = Object.entries(fields).map(([key, value]) => ` ${key}=${value}`).join("");
    this.lines.push(`${level}: ${message}${rest}`);
  }

  trace = (message: string, fields?: LogFields) => this.#write("trace", message, fields);
  debug = (message: string, fields?: LogFields) => this.#write("debug", message, fields);
  info = (message: string, fields?: LogFields) => this.#write("info", message, fields);
  warn = (message: string, fields?: LogFields) => this.#write("warn", message, fields);
  error = (message: string, fields?: LogFields) => this.#write("error", message, fields);
  child = () => this;

  get text(): string {
    return this.lines.join("\n");
  }
}

/** Options of {@linkcode openOn}. */
export interface OpenOnOptions {
  readonly instanceId?: string;
  /** The `Backend` object; the example's AccessKey where it names none. */
  readonly backend?: Readonly<Record<string, unknown>>;
  readonly network?: Prefix;
  readonly env?: Readonly<Record<string, string>>;
  /** @default the simulator's, as the instance sees it */
  readonly metadataEndpoint?: string;
  readonly log?: LineLog;
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
}

/** Opens `ali-vpc` as on an instance of the simulated cloud. */
export function openOn(simulator: Simulator, options: OpenOnOptions = {}): Promise<OwnWriter> {
  return openOwnWriter(optionsOn(simulator, options));
}

/** Finds out who an instance of the simulated cloud is, and no more. */
export function identifyOn(
  simulator: Simulator,
  options: OpenOnOptions = {},
): Promise<AliCloud> {
  return identifyAliVpc(optionsOn(simulator, options));
}

/** The source/destination checks of interfaces, as a daemon sees to them. */
export function checksOf(
  cloud: AliCloud,
  interfaces: () => readonly NamedInterface[],
  log = new LineLog(),
): SourceDestCheckTable {
  return makeChecks(cloud, parse({}), { interfaces, log })!;
}

function optionsOn(simulator: Simulator, options: OpenOnOptions): AliVpcOptions {
  const { instanceId = EXAMPLE.instanceIds[0], log = new LineLog(), env = keyEnv() } = options;
  return {
    config: parse(options.backend ?? {}),
    network: options.network ?? NETWORK,
    endpoints: {
      vpc: simulator.vpcEndpoint,
      ecs: simulator.ecsEndpoint,
      sts: simulator.stsEndpoint,
      metadata: options.metadataEndpoint ?? simulator.metadataEndpoint(instanceId),
    },
    env: (name) => env[name],
    log,
    clock: options.clock ?? fastClock(),
    signal: options.signal ?? AbortSignal.timeout(60_000),
  };
}

/**
 * A clock that runs `factor` times as fast as the real one, so that waits of seconds and budgets
 * of minutes can be tested as they are.
 */
export function fastClock(factor = 50): Clock {
  const start = Date.now();
  return {
    now: () => start + (Date.now() - start) * factor,
    delay: (milliseconds, options) => delay(milliseconds / factor, options),
  };
}

/** The example's AccessKey as upstream's guide gives it. */
export function keyEnv(): Record<string, string> {
  return { ACCESS_KEY_ID: EXAMPLE.accessKeyId, ACCESS_KEY_SECRET: EXAMPLE.accessKeySecret };
}

export function parse(backend: Readonly<Record<string, unknown>>): AliVpcConfig {
  return aliVpc.parseConfig({ Type: "ali-vpc", ...backend }).config;
}

/** A lease of `subnet` whose host has the address `publicIp`. */
export function lease(subnet: string, publicIp: string): Lease {
  return {
    key: subnet.replace("/", "-"),
    subnet: { ipv4: Prefix.parse(subnet) },
    attributes: { publicIp: Address.parse(publicIp), backendType: "" },
  };
}

/** Runs one round of the real reconciler, with the real plan. */
export async function round(
  cloud: OwnWriter,
  own: Lease,
  options: { peers?: readonly Lease[]; log?: LineLog; checks?: boolean; signal?: AbortSignal } = {},
) {
  const { peers = [], log = new LineLog(), signal = AbortSignal.timeout(60_000) } = options;
  const facts = await cloud.follow(own, peers, { signal });
  const plan = planAll(aliVpc, {
    config: parse({}),
    network: {},
    host: { link: "eth0", mtuBytes: 1500 },
    facts,
    own,
    peers,
  });
  const checks: readonly SourceDestCheckSpec[] = plan.sourceDestChecks ?? [];
  const reconciler = new Reconciler({
    name: "cloud",
    stages: [
      { table: cloud.routes, desired: () => plan.cloudRoutes ?? [] },
      ...(options.checks ? [{ table: cloud.sourceDestCheck, desired: () => checks }] : []),
    ],
    resyncMs: 60_000,
    log,
  });
  return roundJson(await reconciler.round({ signal }));
}

/** Requests that ask for a change and are no dry run. */
export function writes(requests: readonly RequestRecord[]): readonly RequestRecord[] {
  return requests.filter((request) =>
    (request.service === "vpc" || request.service === "ecs") &&
    !/^(Describe|Get|List)/.test(request.action) && request.params["DryRun"] !== "true"
  );
}
