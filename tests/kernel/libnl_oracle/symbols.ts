import {
  buffer,
  int,
  pointer,
  uint32_t,
  uint8_t,
  unsigned_int,
  void_,
} from "../../../ffi/c_types.ts";

/** What the codec tests ask of libnl-route-3, and through it of libnl-3. */
export const oracleSymbols = {
  // void nl_addr_set_prefixlen(struct nl_addr *, int); <netlink/addr.h>
  nl_addr_set_prefixlen: { parameters: [pointer, int], result: void_ },
  // unsigned int nl_addr_get_prefixlen(const struct nl_addr *); <netlink/addr.h>
  nl_addr_get_prefixlen: { parameters: [pointer], result: unsigned_int },
  // void *nl_addr_get_binary_addr(const struct nl_addr *); <netlink/addr.h>
  nl_addr_get_binary_addr: { parameters: [pointer], result: pointer },
  // unsigned int nl_addr_get_len(const struct nl_addr *); <netlink/addr.h>
  nl_addr_get_len: { parameters: [pointer], result: unsigned_int },

  // struct rtnl_addr *rtnl_addr_alloc(void); <netlink/route/addr.h>
  rtnl_addr_alloc: { parameters: [], result: pointer },
  // void rtnl_addr_put(struct rtnl_addr *); <netlink/route/addr.h>
  rtnl_addr_put: { parameters: [pointer], result: void_ },
  // void rtnl_addr_set_ifindex(struct rtnl_addr *, int); <netlink/route/addr.h>
  rtnl_addr_set_ifindex: { parameters: [pointer, int], result: void_ },
  // int rtnl_addr_set_local(struct rtnl_addr *, struct nl_addr *); <netlink/route/addr.h>
  rtnl_addr_set_local: { parameters: [pointer, pointer], result: int },
  // void rtnl_addr_set_scope(struct rtnl_addr *, int); <netlink/route/addr.h>
  rtnl_addr_set_scope: { parameters: [pointer, int], result: void_ },
  // void rtnl_addr_set_flags(struct rtnl_addr *, unsigned int); <netlink/route/addr.h>
  rtnl_addr_set_flags: { parameters: [pointer, unsigned_int], result: void_ },
  // int rtnl_addr_build_add_request(struct rtnl_addr *, int, struct nl_msg **); <netlink/route/addr.h>
  rtnl_addr_build_add_request: { parameters: [pointer, int, buffer], result: int },

  // struct rtnl_route *rtnl_route_alloc(void); <netlink/route/route.h>
  rtnl_route_alloc: { parameters: [], result: pointer },
  // void rtnl_route_put(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_put: { parameters: [pointer], result: void_ },
  // int rtnl_route_parse(struct nlmsghdr *, struct rtnl_route **); <netlink/route/route.h>
  rtnl_route_parse: { parameters: [buffer, buffer], result: int },
  // void rtnl_route_set_table(struct rtnl_route *, uint32_t); <netlink/route/route.h>
  rtnl_route_set_table: { parameters: [pointer, uint32_t], result: void_ },
  // uint32_t rtnl_route_get_table(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_table: { parameters: [pointer], result: uint32_t },
  // void rtnl_route_set_scope(struct rtnl_route *, uint8_t); <netlink/route/route.h>
  rtnl_route_set_scope: { parameters: [pointer, uint8_t], result: void_ },
  // uint8_t rtnl_route_get_scope(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_scope: { parameters: [pointer], result: uint8_t },
  // void rtnl_route_set_protocol(struct rtnl_route *, uint8_t); <netlink/route/route.h>
  rtnl_route_set_protocol: { parameters: [pointer, uint8_t], result: void_ },
  // uint8_t rtnl_route_get_protocol(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_protocol: { parameters: [pointer], result: uint8_t },
  // void rtnl_route_set_priority(struct rtnl_route *, uint32_t); <netlink/route/route.h>
  rtnl_route_set_priority: { parameters: [pointer, uint32_t], result: void_ },
  // uint32_t rtnl_route_get_priority(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_priority: { parameters: [pointer], result: uint32_t },
  // int rtnl_route_set_family(struct rtnl_route *, uint8_t); <netlink/route/route.h>
  rtnl_route_set_family: { parameters: [pointer, uint8_t], result: int },
  // int rtnl_route_set_type(struct rtnl_route *, uint8_t); <netlink/route/route.h>
  rtnl_route_set_type: { parameters: [pointer, uint8_t], result: int },
  // uint8_t rtnl_route_get_type(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_type: { parameters: [pointer], result: uint8_t },
  // int rtnl_route_set_dst(struct rtnl_route *, struct nl_addr *); <netlink/route/route.h>
  rtnl_route_set_dst: { parameters: [pointer, pointer], result: int },
  // struct nl_addr *rtnl_route_get_dst(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_dst: { parameters: [pointer], result: pointer },
  // int rtnl_route_set_pref_src(struct rtnl_route *, struct nl_addr *); <netlink/route/route.h>
  rtnl_route_set_pref_src: { parameters: [pointer, pointer], result: int },
  // struct nl_addr *rtnl_route_get_pref_src(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_pref_src: { parameters: [pointer], result: pointer },
  // void rtnl_route_add_nexthop(struct rtnl_route *, struct rtnl_nexthop *); <netlink/route/route.h>
  rtnl_route_add_nexthop: { parameters: [pointer, pointer], result: void_ },
  // int rtnl_route_get_nnexthops(struct rtnl_route *); <netlink/route/route.h>
  rtnl_route_get_nnexthops: { parameters: [pointer], result: int },
  // struct rtnl_nexthop *rtnl_route_nexthop_n(struct rtnl_route *, int); <netlink/route/route.h>
  rtnl_route_nexthop_n: { parameters: [pointer, int], result: pointer },
  // int rtnl_route_build_add_request(struct rtnl_route *, int, struct nl_msg **); <netlink/route/route.h>
  rtnl_route_build_add_request: { parameters: [pointer, int, buffer], result: int },
  // struct rtnl_nexthop *rtnl_route_nh_alloc(void); <netlink/route/nexthop.h>
  rtnl_route_nh_alloc: { parameters: [], result: pointer },
  // void rtnl_route_nh_set_ifindex(struct rtnl_nexthop *, int); <netlink/route/nexthop.h>
  rtnl_route_nh_set_ifindex: { parameters: [pointer, int], result: void_ },
  // int rtnl_route_nh_get_ifindex(struct rtnl_nexthop *); <netlink/route/nexthop.h>
  rtnl_route_nh_get_ifindex: { parameters: [pointer], result: int },
  // void rtnl_route_nh_set_gateway(struct rtnl_nexthop *, struct nl_addr *); <netlink/route/nexthop.h>
  rtnl_route_nh_set_gateway: { parameters: [pointer, pointer], result: void_ },
  // struct nl_addr *rtnl_route_nh_get_gateway(struct rtnl_nexthop *); <netlink/route/nexthop.h>
  rtnl_route_nh_get_gateway: { parameters: [pointer], result: pointer },
  // void rtnl_route_nh_set_flags(struct rtnl_nexthop *, unsigned int); <netlink/route/nexthop.h>
  rtnl_route_nh_set_flags: { parameters: [pointer, unsigned_int], result: void_ },
  // unsigned int rtnl_route_nh_get_flags(struct rtnl_nexthop *); <netlink/route/nexthop.h>
  rtnl_route_nh_get_flags: { parameters: [pointer], result: unsigned_int },

  // struct rtnl_neigh *rtnl_neigh_alloc(void); <netlink/route/neighbour.h>
  rtnl_neigh_alloc: { parameters: [], result: pointer },
  // void rtnl_neigh_put(struct rtnl_neigh *); <netlink/route/neighbour.h>
  rtnl_neigh_put: { parameters: [pointer], result: void_ },
  // int rtnl_neigh_parse(struct nlmsghdr *, struct rtnl_neigh **); <netlink/route/neighbour.h>
  rtnl_neigh_parse: { parameters: [buffer, buffer], result: int },
  // void rtnl_neigh_set_state(struct rtnl_neigh *, int); <netlink/route/neighbour.h>
  rtnl_neigh_set_state: { parameters: [pointer, int], result: void_ },
  // int rtnl_neigh_get_state(struct rtnl_neigh *); <netlink/route/neighbour.h>
  rtnl_neigh_get_state: { parameters: [pointer], result: int },
  // void rtnl_neigh_set_flags(struct rtnl_neigh *, unsigned int); <netlink/route/neighbour.h>
  rtnl_neigh_set_flags: { parameters: [pointer, unsigned_int], result: void_ },
  // unsigned int rtnl_neigh_get_flags(struct rtnl_neigh *); <netlink/route/neighbour.h>
  rtnl_neigh_get_flags: { parameters: [pointer], result: unsigned_int },
  // void rtnl_neigh_set_ifindex(struct rtnl_neigh *, int); <netlink/route/neighbour.h>
  rtnl_neigh_set_ifindex: { parameters: [pointer, int], result: void_ },
  // int rtnl_neigh_get_ifindex(struct rtnl_neigh *); <netlink/route/neighbour.h>
  rtnl_neigh_get_ifindex: { parameters: [pointer], result: int },
  // void rtnl_neigh_set_lladdr(struct rtnl_neigh *, struct nl_addr *); <netlink/route/neighbour.h>
  rtnl_neigh_set_lladdr: { parameters: [pointer, pointer], result: void_ },
  // struct nl_addr *rtnl_neigh_get_lladdr(struct rtnl_neigh *); <netlink/route/neighbour.h>
  rtnl_neigh_get_lladdr: { parameters: [pointer], result: pointer },
  // int rtnl_neigh_set_dst(struct rtnl_neigh *, struct nl_addr *); <netlink/route/neighbour.h>
  rtnl_neigh_set_dst: { parameters: [pointer, pointer], result: int },
  // struct nl_addr *rtnl_neigh_get_dst(struct rtnl_neigh *); <netlink/route/neighbour.h>
  rtnl_neigh_get_dst: { parameters: [pointer], result: pointer },
  // void rtnl_neigh_set_family(struct rtnl_neigh *, int); <netlink/route/neighbour.h>
  rtnl_neigh_set_family: { parameters: [pointer, int], result: void_ },
  // int rtnl_neigh_build_add_request(struct rtnl_neigh *, int, struct nl_msg **); <netlink/route/neighbour.h>
  rtnl_neigh_build_add_request: { parameters: [pointer, int, buffer], result: int },
} as const satisfies Deno.ForeignLibraryInterface;
