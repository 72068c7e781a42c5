/**
 * Sizes and field offsets in bytes of structs that cross the boundary; a test compares them with
 * the headers.
 *
 * @module
 */

/** <linux/ethtool.h> */
export const ethtool_value = { size: 8, cmd: 0, data: 4 } as const;
