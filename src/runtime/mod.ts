/**
 * Opens the runtime of each backend; what only one of them needs is loaded by it alone.
 *
 * @module
 */
import {
  aliVpc,
  type AliVpcConfig,
  hostGw,
  ipip,
  udp,
  type UdpConfig,
  vxlan,
} from "../backends/mod.ts";
import { openUnderlayRuntime } from "./kernel.ts";
import type { BackendRuntime, BackendRuntimeOptions } from "./runtime.ts";

/**
 * Opens what the backend needs besides the kernel and checks it, before a lease is written.
 *
 * @throws {OperatorError} What only a person can mend.
 * @throws {Error} What time may mend; call again.
 */
export async function openBackendRuntime(context: BackendRuntimeOptions): Promise<BackendRuntime> {
  const { backend, backendConfig: config, network } = context.configured;
  if (backend !== udp) await context.formerPath.discard();
  if (backend === aliVpc) {
    // Only ali-vpc pays for the SDK.
    const { openAliVpcRuntime } = await import("../app/ali_vpc_runtime.ts");
    return await openAliVpcRuntime(context, config as AliVpcConfig);
  }
  if (backend === udp) {
    // Only udp pays for the packet path.
    const { openUdpRuntime } = await import("./udp/runtime.ts");
    return await openUdpRuntime(context, config as UdpConfig);
  }
  if (backend === hostGw || backend === vxlan || backend === ipip) {
    return await openUnderlayRuntime(context);
  }
  return {
    announce: (host) => backend.announce(config, host, undefined),
    plan: (host, own, peers) =>
      backend.plan({ config, network, host, facts: undefined, own, peers }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
