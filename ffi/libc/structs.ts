/**
 * Sizes and field offsets in bytes of structs that cross the boundary; a test compares them with
 * the headers.
 *
 * @module
 */

/** <poll.h> */
export const pollfd = { size: 8, fd: 0, events: 4, revents: 6 } as const;

/** <sys/time.h> */
export const timeval = { size: 16, tv_sec: 0, tv_usec: 8 } as const;

/** <linux/filter.h> */
export const sock_filter = { size: 8, code: 0, jt: 2, jf: 3, k: 4 } as const;
export const sock_fprog = { size: 16, len: 0, filter: 8 } as const;

/** <sys/socket.h> */
export const ucred = { size: 12, pid: 0, uid: 4, gid: 8 } as const;

/** <sys/un.h> */
export const sockaddr_un = { size: 110, sun_family: 0, sun_path: 2 } as const;

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

/** <linux/if.h>; `ifr_qlen` and `ifr_data` share the place of the flags. */
export const ifreq = { size: 40, ifr_name: 0, ifr_flags: 16, ifr_data: 16 } as const;

/** <linux/ethtool.h> */
export const ethtool_value = { size: 8, cmd: 0, data: 4 } as const;
