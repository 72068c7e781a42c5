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
