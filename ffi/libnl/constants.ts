/** Macros and enum constants, by their C names; a test compares them with the headers. */

/** <linux/netlink.h> */
export const NETLINK_ROUTE = 0;
export const NLMSG_ALIGNTO = 4;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;
export const NLA_TYPE_MASK = ~0xc000;

/** <linux/netlink.h>: nlmsg_flags. */
export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;

/** <linux/netlink.h>: options of SOL_NETLINK, attributes of an extended acknowledgement. */
export const NETLINK_CAP_ACK = 10;
export const NETLINK_EXT_ACK = 11;
export const NETLINK_GET_STRICT_CHK = 12;
export const NLMSGERR_ATTR_MSG = 1;

/** <netlink/errno.h> */
export const NLE_FAILURE = 1;
export const NLE_AGAIN = 4;
export const NLE_NOMEM = 5;
export const NLE_MSG_TRUNC = 18;
