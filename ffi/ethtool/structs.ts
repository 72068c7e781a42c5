/**
 * Sizes and field offsets in bytes of structs that cross the boundary; a test compares them with
 * the headers.
 *
 * @module
 */

/** <linux/if.h> */
export const ifreq = { size: 40, ifr_name: 0, ifr_data: 16 } as const;

/** <linux/ethtool.h> */
export const ethtool_value = { size: 8, cmd: 0, data: 4 } as const;
