/**
 * Sizes and field offsets in bytes of the structs that cross the boundary, for 64-bit Linux; a test
 * compares them with the headers.
 *
 * @module
 */

/** <linux/if.h>; `ifr_ifindex` and `ifr_qlen` stand where the flags do. */
export const ifreq = { size: 40, ifr_name: 0, ifr_flags: 16 } as const;

/**
 * <linux/virtio_net.h>: stands before each packet of a TUN device with IFF_VNET_HDR, in host byte
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

/** <netinet/in.h>: port and address in network order, the family in host order. */
export const sockaddr_in = { size: 16, sin_family: 0, sin_port: 2, sin_addr: 4 } as const;
export const sockaddr_in6 = {
  size: 28,
  sin6_family: 0,
  sin6_port: 2,
  sin6_flowinfo: 4,
  sin6_addr: 8,
  sin6_scope_id: 24,
} as const;

/** <sys/uio.h> */
export const iovec = { size: 16, iov_base: 0, iov_len: 8 } as const;

/** <sys/socket.h> */
export const msghdr = {
  size: 56,
  msg_name: 0,
  msg_namelen: 8,
  msg_iov: 16,
  msg_iovlen: 24,
  msg_control: 32,
  msg_controllen: 40,
  msg_flags: 48,
} as const;
export const mmsghdr = { size: 64, msg_hdr: 0, msg_len: 56 } as const;
export const cmsghdr = { size: 16, cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 } as const;
