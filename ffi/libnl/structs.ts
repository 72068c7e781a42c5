/**
 * Sizes and field offsets in bytes of the structs that netlink messages are made of; a test
 * compares them with the headers. All integers are in host order; addresses, ports and labels in
 * network order.
 *
 * @module
 */

/** <linux/netlink.h> */
export const sockaddr_nl = { size: 12, nl_family: 0, nl_pid: 4, nl_groups: 8 } as const;

/** <linux/netlink.h> */
export const nlmsghdr = {
  size: 16,
  nlmsg_len: 0,
  nlmsg_type: 4,
  nlmsg_flags: 6,
  nlmsg_seq: 8,
  nlmsg_pid: 12,
} as const;

/** <linux/netlink.h> */
export const nlmsgerr = { size: 20, error: 0, msg: 4 } as const;

/** <linux/netlink.h> */
export const nlattr = { size: 4, nla_len: 0, nla_type: 2 } as const;
