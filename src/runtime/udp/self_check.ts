/**
 * Tries the Worker of the packet path without a device, for `flanneld self-test`.
 *
 * @module
 */
import { openTunnel } from "../../dataplane/tunnel.ts";

/** Starts the Worker of the packet path and waits until it says which descriptors it uses. */
export async function useWorker({ signal }: { signal: AbortSignal }): Promise<void> {
  const { promise: fault, reject } = Promise.withResolvers<never>();
  await using tunnel = openTunnel({
    allowAnySource: false,
    natTraversal: false,
    families: [],
    onNotice() {},
    onDeviceGone() {},
    onFault: reject,
  });
  fault.catch(() => {/* it may come after the race below */});
  tunnel.start({ tcp: false, udp: false });
  const none = { tun: undefined, socketV4: undefined, socketV6: undefined };
  await Promise.race([tunnel.setDescriptors(none, { signal }), fault]);
}
