/**
 * Sizes and field offsets in bytes of the structs that cross the boundary, for 64-bit Linux; a test
 * compares them with the headers.
 *
 * @module
 */

/**
 * <linux/virtio_net.h>: precedes each packet of a TUN device with IFF_VNET_HDR, in host byte
 * order.
 */
export const virtio_net_hdr = {
  size: 10,
  flags: 0,
  gso_type: 1,
  hdr_len: 2,
  gso_size: 4,
  csum_start: 6,
  csum_offset: 8,
} as const;
