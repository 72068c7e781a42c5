/** Macros by their C names; a test compares them with the headers. */

/** <linux/sockios.h> */
export const SIOCETHTOOL = 0x8946;

/** <linux/ethtool.h> */
export const ETHTOOL_GTXCSUM = 0x16;
export const ETHTOOL_STXCSUM = 0x17;
