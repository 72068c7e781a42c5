/** Links for tests. @module */
import { Address } from "../../src/net/mod.ts";
import type { LinkSpec } from "../../src/state/mod.ts";

/** A VXLAN device `flannel.1` over `eth0`, whose address is `local`. */
export function vxlanLink(local: string, vxlan: Partial<LinkSpec["vxlan"]> = {}): LinkSpec {
  return {
    name: "flannel.1",
    kind: "vxlan",
    mtuBytes: 1450,
    vxlan: {
      vni: 1,
      port: 8472,
      underlay: "eth0",
      local: Address.parse(local),
      learning: false,
      gbp: false,
      ...vxlan,
    },
  };
}
