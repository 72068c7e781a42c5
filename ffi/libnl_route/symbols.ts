/** The symbol table of libnl-route-3. @module */
import { buffer, int, pointer, uint32_t, uint8_t, unsigned_int, void_ } from "../c_types.ts";

/** libnl-route-3, as far as flanneld calls it. Each prototype is the header's. */
export const libnlRouteSymbols = {
  // struct rtnl_link *rtnl_link_alloc(void); <netlink/route/link.h>
  rtnl_link_alloc: { parameters: [], result: pointer },
  // void rtnl_link_put(struct rtnl_link *); <netlink/route/link.h>
  rtnl_link_put: { parameters: [pointer], result: void_ },
  // void rtnl_link_set_name(struct rtnl_link *, const char *); <netlink/route/link.h>
  rtnl_link_set_name: { parameters: [pointer, buffer], result: void_ },
  // void rtnl_link_set_ifindex(struct rtnl_link *, int); <netlink/route/link.h>
  rtnl_link_set_ifindex: { parameters: [pointer, int], result: void_ },
  // void rtnl_link_set_mtu(struct rtnl_link *, unsigned int); <netlink/route/link.h>
  rtnl_link_set_mtu: { parameters: [pointer, unsigned_int], result: void_ },
  // void rtnl_link_set_txqlen(struct rtnl_link *, unsigned int); <netlink/route/link.h>
  rtnl_link_set_txqlen: { parameters: [pointer, unsigned_int], result: void_ },
  // void rtnl_link_set_addr(struct rtnl_link *, struct nl_addr *); <netlink/route/link.h>
  rtnl_link_set_addr: { parameters: [pointer, pointer], result: void_ },
  // void rtnl_link_set_flags(struct rtnl_link *, unsigned int); <netlink/route/link.h>
  rtnl_link_set_flags: { parameters: [pointer, unsigned_int], result: void_ },
  // void rtnl_link_set_ifalias(struct rtnl_link *, const char *); <netlink/route/link.h>
  rtnl_link_set_ifalias: { parameters: [pointer, buffer], result: void_ },
  // int rtnl_link_set_type(struct rtnl_link *, const char *); <netlink/route/link.h>
  rtnl_link_set_type: { parameters: [pointer, buffer], result: int },
  // int rtnl_link_build_add_request(struct rtnl_link *, int, struct nl_msg **); <netlink/route/link.h>
  rtnl_link_build_add_request: { parameters: [pointer, int, buffer], result: int },
  // int rtnl_link_build_change_request(struct rtnl_link *, struct rtnl_link *, int, struct nl_msg **); <netlink/route/link.h>
  rtnl_link_build_change_request: { parameters: [pointer, pointer, int, buffer], result: int },
  // int rtnl_link_build_delete_request(const struct rtnl_link *, struct nl_msg **); <netlink/route/link.h>
  rtnl_link_build_delete_request: { parameters: [pointer, buffer], result: int },

  // int rtnl_link_vxlan_set_id(struct rtnl_link *, uint32_t); <netlink/route/link/vxlan.h>
  rtnl_link_vxlan_set_id: { parameters: [pointer, uint32_t], result: int },
  // int rtnl_link_vxlan_set_link(struct rtnl_link *, uint32_t); <netlink/route/link/vxlan.h>
  rtnl_link_vxlan_set_link: { parameters: [pointer, uint32_t], result: int },
  // int rtnl_link_vxlan_set_local(struct rtnl_link *, struct nl_addr *); <netlink/route/link/vxlan.h>
  rtnl_link_vxlan_set_local: { parameters: [pointer, pointer], result: int },
  // int rtnl_link_vxlan_set_learning(struct rtnl_link *, uint8_t); <netlink/route/link/vxlan.h>
  rtnl_link_vxlan_set_learning: { parameters: [pointer, uint8_t], result: int },
  // int rtnl_link_vxlan_set_port(struct rtnl_link *, uint32_t); <netlink/route/link/vxlan.h>
  rtnl_link_vxlan_set_port: { parameters: [pointer, uint32_t], result: int },
  // int rtnl_link_vxlan_set_flags(struct rtnl_link *, uint32_t, int); <netlink/route/link/vxlan.h>
  rtnl_link_vxlan_set_flags: { parameters: [pointer, uint32_t, int], result: int },

  // int rtnl_link_ipip_set_local(struct rtnl_link *, uint32_t); <netlink/route/link/ipip.h>
  rtnl_link_ipip_set_local: { parameters: [pointer, uint32_t], result: int },
  // int rtnl_link_ipip_set_pmtudisc(struct rtnl_link *, uint8_t); <netlink/route/link/ipip.h>
  rtnl_link_ipip_set_pmtudisc: { parameters: [pointer, uint8_t], result: int },
} as const satisfies Deno.ForeignLibraryInterface;
