import { Agent } from "node:http";
import RPCClient from "@alicloud/pop-core";
import { type BehaviourConfig, type Simulator, startSimulator } from "./mod.ts";
import type { CloudConfig } from "./config.ts";
import { EXAMPLE, exampleConfig } from "./example.ts";
import { isoSeconds } from "./sts_actions.ts";

/** An answer's body, or an error's. */
// deno-lint-ignore no-explicit-any -- tests reach deep into bodies, and assert what they find
export type Body = any;

/** How an API call failed. */
export interface ApiFailure {
  readonly code: string;
  readonly status: number;
  readonly message: string;
  readonly body: Body;
}

/** Who calls; the example's access key where nothing is given. */
export interface Caller {
  readonly accessKeyId: string;
  readonly accessKeySecret: string;
  readonly securityToken?: string;
}

const EXAMPLE_CALLER: Caller = {
  accessKeyId: EXAMPLE.accessKeyId,
  accessKeySecret: EXAMPLE.accessKeySecret,
};

/** A clock that moves only when told. */
export class ManualClock {
  ms = Date.UTC(2026, 0, 15, 12);

  readonly now = (): number => this.ms;

  advance(ms: number): void {
    this.ms += ms;
  }
}

/** A simulator on a manual clock with a client that others wrote (pop-core) in front of it. */
export class TestBench implements AsyncDisposable {
  readonly simulator: Simulator;
  readonly clock: ManualClock;
  caller: Caller = EXAMPLE_CALLER;

  private constructor(simulator: Simulator, clock: ManualClock) {
    this.simulator = simulator;
    this.clock = clock;
  }

  /** The example cloud; writes take 1 s unless `behaviour` says otherwise. */
  static async start(
    options: { config?: Partial<CloudConfig>; behaviour?: BehaviourConfig } = {},
  ): Promise<TestBench> {
    const clock = new ManualClock();
    const config = exampleConfig({
      behaviour: { delays: { minMs: 1000, maxMs: 1000 }, ...options.behaviour },
      ...options.config,
    });
    return new TestBench(await startSimulator({ config, nowMs: clock.now }), clock);
  }

  get cloud(): Simulator["cloud"] {
    return this.simulator.cloud;
  }

  vpc(action: string, params: object = {}, options: CallOptions = {}): Promise<Body> {
    return this.#call(this.simulator.vpcEndpoint, "2016-04-28", action, params, options);
  }

  ecs(action: string, params: object = {}, options: CallOptions = {}): Promise<Body> {
    return this.#call(this.simulator.ecsEndpoint, "2014-05-26", action, params, options);
  }

  sts(action: string, params: object = {}, options: CallOptions = {}): Promise<Body> {
    return this.#call(this.simulator.stsEndpoint, "2015-04-01", action, params, options);
  }

  /** Creates a route to the first instance; the table is the system one. */
  create(destination: string, params: object = {}): Promise<Body> {
    return this.vpc("CreateRouteEntry", {
      RouteTableId: EXAMPLE.systemTableId,
      DestinationCidrBlock: destination,
      NextHopId: EXAMPLE.instanceIds[0],
      ...params,
    });
  }

  /** All entries of a table as the list call gives them. */
  async list(params: object = {}): Promise<Body[]> {
    const entries: Body[] = [];
    for (let token = "";;) {
      const body = await this.vpc("DescribeRouteEntryList", {
        RouteTableId: EXAMPLE.systemTableId,
        MaxResult: 100,
        ...(token === "" ? {} : { NextToken: token }),
        ...params,
      });
      entries.push(...body.RouteEntrys.RouteEntry);
      token = body.NextToken;
      if (token === "") return entries;
    }
  }

  /** Lets time pass until everything has settled. */
  settle(): void {
    while (this.cloud.nextDueAtMs() !== undefined) {
      this.clock.ms = Math.max(this.clock.ms, this.cloud.nextDueAtMs()!);
      this.cloud.settle();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.simulator[Symbol.asyncDispose]();
  }

  async #call(
    endpoint: string,
    apiVersion: string,
    action: string,
    params: object,
    options: CallOptions,
  ): Promise<Body> {
    const agent = new Agent({ keepAlive: false });
    const client = new RPCClient({ endpoint, apiVersion, ...(options.caller ?? this.caller) });
    const common = { RegionId: EXAMPLE.regionId, Timestamp: isoSeconds(this.clock.ms) };
    try {
      return await client.request(action, { ...common, ...params }, {
        method: options.method ?? "POST",
        agent,
        timeout: 5000,
      });
    } finally {
      agent.destroy();
    }
  }
}

/** Options of one call. */
export interface CallOptions {
  readonly method?: "GET" | "POST";
  readonly caller?: Caller;
}

/** How `call` fails; an error of this function if it succeeds. */
export async function failureOf(call: Promise<unknown>): Promise<ApiFailure> {
  try {
    await call;
  } catch (error) {
    const { code, data, entry, message } = error as Body;
    return { code, status: entry?.response?.statusCode ?? 0, message, body: data };
  }
  throw new Error("The call should have failed, and has not");
}

/** The code with which `call` fails. */
export async function codeOf(call: Promise<unknown>): Promise<string> {
  return (await failureOf(call)).code;
}
