/**
 * A simulator of what flanneld needs of Alibaba Cloud: the VPC, ECS and STS OpenAPIs and the
 * instance metadata service, with the service's own errors, delays and limits. It is strict where
 * the service is, and misbehaves on command. What packets do is not its affair: a router is fed
 * from {@linkcode Cloud.snapshot}.
 *
 * In process, on loopback: {@linkcode startSimulator}. As a process of its own, in a network
 * namespace say: `main.ts`, with `control.ts` as its remote control.
 *
 * @module
 */
import { Cloud, type CloudOptions } from "./cloud.ts";
import type { CloudConfig } from "./config.ts";
import { Listeners } from "./listeners.ts";
import type { RequestRecord } from "./model.ts";

export * from "./cloud.ts";
export * from "./model.ts";
export type {
  Behaviour,
  BehaviourConfig,
  CloudConfig,
  FaultConfig,
  FaultEffect,
  InstanceConfig,
  ProcessConfig,
  RouteEntryConfig,
} from "./config.ts";

/** A running simulator. Disposing ends every connection. */
export interface Simulator extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly vpcEndpoint: string;
  readonly ecsEndpoint: string;
  readonly stsEndpoint: string;
  /** The state, and what an operator does to it. */
  readonly cloud: Cloud;
  /** Every request so far, oldest first. */
  readonly requests: readonly RequestRecord[];
  /** Base URL of the metadata service as one instance sees it. */
  metadataEndpoint(instanceId: string): string;
}

/** Options of {@linkcode startSimulator}. */
export interface SimulatorOptions extends CloudOptions {
  readonly config: CloudConfig;
  /** PEM texts; with them the APIs speak HTTPS (the metadata service never does). */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** Starts a simulator on free loopback ports. */
export function startSimulator(options: SimulatorOptions): Promise<Simulator> {
  const cloud = new Cloud(options.config, options);
  const listeners = new Listeners(cloud);
  const hostname = "127.0.0.1";
  const apiOptions = { hostname, ...(options.tls ? { tls: options.tls } : {}) };
  const metadata = new Map<string, string>();
  return Promise.resolve({
    vpcEndpoint: listeners.openApi(["vpc"], apiOptions),
    ecsEndpoint: listeners.openApi(["ecs"], apiOptions),
    stsEndpoint: listeners.openApi(["sts"], apiOptions),
    cloud,
    get requests() {
      return cloud.requests();
    },
    metadataEndpoint(instanceId: string) {
      const known = metadata.get(instanceId);
      if (known !== undefined) return known;
      cloud.network.instance(instanceId);
      const url = listeners.openMetadata({ hostname, instanceId });
      metadata.set(instanceId, url);
      return url;
    },
    [Symbol.asyncDispose]: () => listeners[Symbol.asyncDispose](),
  });
}
