/** The symbol table of the packet path's libc calls. @module */
import { buffer, int, nfds_t, pointer, size_t, socklen_t, unsigned_int } from "../c_types.ts";

/**
 * What `ssize_t` is read as here: every result is below 2^31, and 64-bit results are BigInts to
 * Deno, one garbage object for each packet. Both x86-64 and arm64 return the low half in the same
 * register.
 */
const narrow_ssize_t = int;

/** libc's calls of the packet path: all of them on the calling thread. */
export const packetSymbols = {
  // int *__errno_location(void); <errno.h>
  __errno_location: { parameters: [], result: pointer },
  // int poll(struct pollfd *, nfds_t, int); <poll.h>
  poll: { parameters: [buffer, nfds_t, int], result: int },
  // ssize_t read(int, void *, size_t); <unistd.h>
  read: { parameters: [int, buffer, size_t], result: narrow_ssize_t },
  // ssize_t readv(int, const struct iovec *, int); <sys/uio.h>
  readv: { parameters: [int, buffer, int], result: narrow_ssize_t },
  // ssize_t writev(int, const struct iovec *, int); <sys/uio.h>
  writev: { parameters: [int, buffer, int], result: narrow_ssize_t },
  // int recvmmsg(int, struct mmsghdr *, unsigned int, int, struct timespec *); <sys/socket.h>
  recvmmsg: { parameters: [int, buffer, unsigned_int, int, buffer], result: int },
  // int sendmmsg(int, struct mmsghdr *, unsigned int, int); <sys/socket.h>
  sendmmsg: { parameters: [int, buffer, unsigned_int, int], result: int },
  // ssize_t sendto(int, const void *, size_t, int, const struct sockaddr *, socklen_t); <sys/socket.h>
  sendto: {
    parameters: [int, buffer, size_t, int, buffer, socklen_t],
    result: narrow_ssize_t,
  },
  // int sched_yield(void); <sched.h>
  sched_yield: { parameters: [], result: int },
  // int getpriority(__priority_which_t, id_t); <sys/resource.h>
  getpriority: { parameters: [unsigned_int, unsigned_int], result: int },
  // int setpriority(__priority_which_t, id_t, int); <sys/resource.h>
  setpriority: { parameters: [unsigned_int, unsigned_int, int], result: int },
} as const satisfies Deno.ForeignLibraryInterface;
