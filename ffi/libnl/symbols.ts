/** The symbol table of libnl-3. @module */
import { buffer, int, pointer, size_t, uint32_t, void_ } from "../c_types.ts";

/** libnl-3, as far as flanneld calls it. Each prototype is the header's. */
export const libnlSymbols = {
  // struct nl_sock *nl_socket_alloc(void); <netlink/socket.h>
  nl_socket_alloc: { parameters: [], result: pointer },
  // void nl_socket_free(struct nl_sock *); <netlink/socket.h>
  nl_socket_free: { parameters: [pointer], result: void_ },
  // int nl_connect(struct nl_sock *, int); <netlink/netlink.h>
  nl_connect: { parameters: [pointer, int], result: int },
  // int nl_socket_get_fd(const struct nl_sock *); <netlink/socket.h>
  nl_socket_get_fd: { parameters: [pointer], result: int },
  // uint32_t nl_socket_get_local_port(const struct nl_sock *); <netlink/socket.h>
  nl_socket_get_local_port: { parameters: [pointer], result: uint32_t },
  // int nl_socket_add_membership(struct nl_sock *, int); <netlink/socket.h>
  nl_socket_add_membership: { parameters: [pointer, int], result: int },
  // int nl_socket_set_nonblocking(const struct nl_sock *); <netlink/socket.h>
  nl_socket_set_nonblocking: { parameters: [pointer], result: int },
  // int nl_socket_set_msg_buf_size(struct nl_sock *, size_t); <netlink/socket.h>
  nl_socket_set_msg_buf_size: { parameters: [pointer, size_t], result: int },
  // void nl_socket_disable_msg_peek(struct nl_sock *); <netlink/socket.h>
  nl_socket_disable_msg_peek: { parameters: [pointer], result: void_ },
  // int nl_sendto(struct nl_sock *, void *, size_t); <netlink/netlink.h>
  nl_sendto: { parameters: [pointer, buffer, size_t], result: int, nonblocking: true },
  // int nl_recv(struct nl_sock *, struct sockaddr_nl *, unsigned char **, struct ucred **); <netlink/netlink.h>
  nl_recv: { parameters: [pointer, buffer, buffer, buffer], result: int },
  // const char *nl_geterror(int); <netlink/errno.h>
  nl_geterror: { parameters: [int], result: pointer },
  // struct nlmsghdr *nlmsg_hdr(struct nl_msg *); <netlink/msg.h>
  nlmsg_hdr: { parameters: [pointer], result: pointer },
  // void nlmsg_free(struct nl_msg *); <netlink/msg.h>
  nlmsg_free: { parameters: [pointer], result: void_ },
  // struct nl_addr *nl_addr_build(int, const void *, size_t); <netlink/addr.h>
  nl_addr_build: { parameters: [int, buffer, size_t], result: pointer },
  // void nl_addr_put(struct nl_addr *); <netlink/addr.h>
  nl_addr_put: { parameters: [pointer], result: void_ },
} as const satisfies Deno.ForeignLibraryInterface;
