/**
 * The VXLAN device that `vxlan` and the overflow of `ali-vpc` share, and what leads peers' subnets
 * through it.
 *
 * @module
 */

export const DEFAULT_VNI = 1;

/** What Linux uses unless told otherwise; it is older than the assigned 4789. */
export const DEFAULT_VXLAN_PORT = 8472;
