/*
 * Runs a program as if under an old kernel: TUN devices have no offloads, UDP sockets neither
 * UDP_SEGMENT nor UDP_GRO. old_kernel PROGRAM ARG...
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The low half of an argument, on little-endian machines. */
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (at))
#define IF(value, then, otherwise) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (then), (otherwise))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))

int main(int count, char **arguments) {
  struct sock_filter code[] = {
    LOAD(offsetof(struct seccomp_data, nr)),
    IF(__NR_ioctl, 0, 5),
    LOAD(ARGUMENT(1)),
    IF(TUNSETOFFLOAD, 0, 9),
    LOAD(ARGUMENT(2)),
    IF(0, 7, 0),
    RETURN(SECCOMP_RET_ERRNO | EINVAL),
    IF(__NR_setsockopt, 0, 5),
    LOAD(ARGUMENT(1)),
    IF(IPPROTO_UDP, 0, 3),
    LOAD(ARGUMENT(2)),
    IF(UDP_SEGMENT, 2, 0),
    IF(UDP_GRO, 1, 0),
    RETURN(SECCOMP_RET_ALLOW),
    RETURN(SECCOMP_RET_ERRNO | ENOPROTOOPT),
  };
  struct sock_fprog program = { sizeof code / sizeof *code, code };
  if (count < 2) {
    fprintf(stderr, "Usage: old_kernel PROGRAM ARG...\n");
    return 2;
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
    perror("seccomp");
    return 1;
  }
  execvp(arguments[1], arguments + 1);
  perror(arguments[1]);
  return 1;
}
