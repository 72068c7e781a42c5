/** The symbol table of libc. @module */
import {
  buffer,
  int,
  nfds_t,
  pointer,
  size_t,
  socklen_t,
  ssize_t,
  unsigned_int,
  unsigned_long,
  void_,
} from "../c_types.ts";

/** libc, as far as flanneld calls it. Each prototype is the header's. */
export const libcSymbols = {
  // int *__errno_location(void); <errno.h>
  __errno_location: { parameters: [], result: pointer },
  // int close(int); <unistd.h>
  close: { parameters: [int], result: int },
  // int eventfd(unsigned int, int); <sys/eventfd.h>
  eventfd: { parameters: [unsigned_int, int], result: int },
  // ssize_t read(int, void *, size_t); <unistd.h>
  read: { parameters: [int, buffer, size_t], result: ssize_t },
  // ssize_t write(int, const void *, size_t); <unistd.h>
  write: { parameters: [int, buffer, size_t], result: ssize_t },
  // int poll(struct pollfd *, nfds_t, int); <poll.h>
  poll: { parameters: [buffer, nfds_t, int], result: int, nonblocking: true },
  // int setsockopt(int, int, int, const void *, socklen_t); <sys/socket.h>
  setsockopt: { parameters: [int, int, int, buffer, socklen_t], result: int },
  // void free(void *); <stdlib.h>
  free: { parameters: [pointer], result: void_ },
  // int open(const char *, int, ...); <fcntl.h>
  open: { parameters: [buffer, int], result: int },
  // int ioctl(int, unsigned long, ...); <sys/ioctl.h>
  ioctl: { parameters: [int, unsigned_long, pointer], result: int },
  // int fcntl(int, int, ...); <fcntl.h>
  fcntl: { parameters: [int, int, int], result: int },
  // int socket(int, int, int); <sys/socket.h>
  socket: { parameters: [int, int, int], result: int },
  // int bind(int, const struct sockaddr *, socklen_t); <sys/socket.h>
  bind: { parameters: [int, buffer, socklen_t], result: int },
  // int listen(int, int); <sys/socket.h>
  listen: { parameters: [int, int], result: int },
  // int accept4(int, struct sockaddr *, socklen_t *, int); <sys/socket.h>
  accept4: { parameters: [int, pointer, pointer, int], result: int },
  // int connect(int, const struct sockaddr *, socklen_t); <sys/socket.h>
  connect: { parameters: [int, buffer, socklen_t], result: int },
  // int getsockopt(int, int, int, void *, socklen_t *); <sys/socket.h>
  getsockopt: { parameters: [int, int, int, buffer, buffer], result: int },
  // ssize_t sendmsg(int, const struct msghdr *, int); <sys/socket.h>
  sendmsg: { parameters: [int, buffer, int], result: ssize_t },
  // int setns(int, int); <sched.h>
  setns: { parameters: [int, int], result: int },
  // int madvise(void *, size_t, int); <sys/mman.h>
  madvise: { parameters: [pointer, size_t, int], result: int },
  // int memfd_create(const char *, unsigned int); <sys/mman.h>
  memfd_create: { parameters: [buffer, unsigned_int], result: int },
  // int malloc_trim(size_t); <malloc.h>
  malloc_trim: { parameters: [size_t], result: int },
} as const satisfies Deno.ForeignLibraryInterface;
