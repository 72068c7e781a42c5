/**
 * Sizes and field offsets in bytes of the structs that netlink messages are made of; a test
 * compares them with the headers. All integers are in host order; addresses, ports and labels in
 * network order.
 *
 * @module
 */

/** <linux/rtnetlink.h> */
export const ifinfomsg = {
  size: 16,
  ifi_family: 0,
  ifi_type: 2,
  ifi_index: 4,
  ifi_flags: 8,
  ifi_change: 12,
} as const;

/** <linux/if_addr.h> */
export const ifaddrmsg = {
  size: 8,
  ifa_family: 0,
  ifa_prefixlen: 1,
  ifa_flags: 2,
  ifa_scope: 3,
  ifa_index: 4,
} as const;

/** <linux/rtnetlink.h> */
export const rtmsg = {
  size: 12,
  rtm_family: 0,
  rtm_dst_len: 1,
  rtm_src_len: 2,
  rtm_tos: 3,
  rtm_table: 4,
  rtm_protocol: 5,
  rtm_scope: 6,
  rtm_type: 7,
  rtm_flags: 8,
} as const;

/** <linux/rtnetlink.h> */
export const rtnexthop = {
  size: 8,
  rtnh_len: 0,
  rtnh_flags: 2,
  rtnh_hops: 3,
  rtnh_ifindex: 4,
} as const;

/** <linux/rtnetlink.h> */
export const rtvia = { size: 2, rtvia_family: 0, rtvia_addr: 2 } as const;

/** <linux/neighbour.h> */
export const ndmsg = {
  size: 12,
  ndm_family: 0,
  ndm_ifindex: 4,
  ndm_state: 8,
  ndm_flags: 10,
  ndm_type: 11,
} as const;

/** <linux/fib_rules.h> */
export const fib_rule_hdr = {
  size: 12,
  family: 0,
  dst_len: 1,
  src_len: 2,
  tos: 3,
  table: 4,
  action: 7,
  flags: 8,
} as const;
