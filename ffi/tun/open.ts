/** Opening what the packet path reads and writes: TUN queues, UDP and raw sockets. @module */
import { ifreq, sockaddr_in, sockaddr_in6 } from "../libc/structs.ts";
import * as sys from "../libc/constants.ts";
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { SystemCallError } from "../libc/errors.ts";
import type { FileDescriptor, Libc } from "../libc/open.ts";
import * as linux from "./constants.ts";
import { virtio_net_hdr } from "./structs.ts";

const TUN_DEVICE = "/dev/net/tun";

/** The offloads that a TUN device and its kernel agreed on. */
export interface TunOffloads {
  /** Large TCP packets pass whole (TSO), without checksums. */
  readonly tcp: boolean;
  /** The same for runs of UDP datagrams (USO, Linux 6.2). */
  readonly udp: boolean;
}

/** A queue of a TUN device; the descriptor is the caller's to close. */
export interface TunQueue {
  readonly fd: FileDescriptor;
  readonly offloads: TunOffloads;
}

/**
 * Opens the TUN device `name`, creating it if necessary, and makes it persistent
 * (TUNSETPERSIST). Each packet has a `virtio_net_hdr` in front. Reads do not block.
 *
 * @throws {SystemCallError} ENOENT, ENODEV without TUN in the kernel or /dev; EPERM without
 * CAP_NET_ADMIN; EBUSY if another process has it; EINVAL if the name belongs to a link of
 * another kind, or the device is in another mode.
 */
export function openTunQueue(libc: Libc, name: string): TunQueue {
  const fd = libc.openFile(TUN_DEVICE, sys.O_RDWR | sys.O_NONBLOCK);
  try {
    const request = interfaceRequest(name);
    new DataView(request.buffer).setUint16(
      ifreq.ifr_flags,
      linux.IFF_TUN | linux.IFF_NO_PI | linux.IFF_VNET_HDR,
      LITTLE_ENDIAN,
    );
    libc.ioctl(fd, linux.TUNSETIFF, request);
    libc.ioctlNumber(fd, linux.TUNSETPERSIST, 1);
    return { fd, offloads: setOffloads(libc, fd) };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/**
 * Takes over the queue `fd` that another process opened with {@linkcode openTunQueue}.
 *
 * @throws {SystemCallError} If it is not a TUN queue, or its device is gone.
 * @throws {Error} If it is the queue of another device, or in another mode.
 */
export function adoptTunQueue(libc: Libc, fd: FileDescriptor, name: string): TunQueue {
  const request = new Uint8Array(ifreq.size);
  libc.ioctl(fd, linux.TUNGETIFF, request);
  const found = new TextDecoder().decode(request.subarray(0, request.indexOf(0)));
  const flags = new DataView(request.buffer).getUint16(ifreq.ifr_flags, LITTLE_ENDIAN);
  const wanted = linux.IFF_TUN | linux.IFF_NO_PI | linux.IFF_VNET_HDR;
  if (found !== name) throw new Error(`Cannot take over TUN queue: it is one of "${found}"`);
  if ((flags & wanted) !== wanted) {
    throw new Error(`Cannot take over TUN queue of ${name}: it is in another mode`);
  }
  return { fd, offloads: setOffloads(libc, fd) };
}

/** Enables as many offloads as the kernel accepts. */
function setOffloads(libc: Libc, fd: FileDescriptor): TunOffloads {
  const headerSize = new Uint8Array(new Int32Array([virtio_net_hdr.size]).buffer);
  libc.ioctl(fd, linux.TUNSETVNETHDRSZ, headerSize);
  const tcp = linux.TUN_F_CSUM | linux.TUN_F_TSO4 | linux.TUN_F_TSO6 | linux.TUN_F_TSO_ECN;
  const choices: [number, TunOffloads][] = [
    [tcp | linux.TUN_F_USO4 | linux.TUN_F_USO6, { tcp: true, udp: true }],
    [tcp, { tcp: true, udp: false }],
  ];
  for (const [flags, offloads] of choices) {
    try {
      libc.ioctlNumber(fd, linux.TUNSETOFFLOAD, flags);
      return offloads;
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.code !== "EINVAL") throw error;
    }
  }
  return { tcp: false, udp: false };
}

/** Sets how many packets the kernel queues for the reader. */
export function setTransmitQueueLength(libc: Libc, name: string, packets: number): void {
  const socket = libc.socket(sys.AF_INET, sys.SOCK_DGRAM | sys.SOCK_CLOEXEC, 0);
  try {
    const request = interfaceRequest(name);
    new DataView(request.buffer).setInt32(ifreq.ifr_flags, packets, LITTLE_ENDIAN); // ifr_qlen
    libc.ioctl(socket, linux.SIOCSIFTXQLEN, request);
  } finally {
    libc.close(socket);
  }
}

function interfaceRequest(name: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > 15) {
    throw new RangeError(`Cannot use link name "${name}": it must have 1 to 15 bytes`);
  }
  const request = new Uint8Array(ifreq.size);
  request.set(bytes, ifreq.ifr_name);
  return request;
}

/** A `struct sockaddr_in` or `sockaddr_in6` for an address of 4 or 16 bytes. */
export function socketAddress(address: Uint8Array, port: number): Uint8Array<ArrayBuffer> {
  const four = address.length === 4;
  const bytes = new Uint8Array(four ? sockaddr_in.size : sockaddr_in6.size);
  const view = new DataView(bytes.buffer);
  view.setUint16(sockaddr_in.sin_family, four ? sys.AF_INET : sys.AF_INET6, LITTLE_ENDIAN);
  view.setUint16(sockaddr_in.sin_port, port); // network order
  bytes.set(address, four ? sockaddr_in.sin_addr : sockaddr_in6.sin6_addr);
  return bytes;
}

/** A bound socket of the tunnel; the descriptor is the caller's to close. */
export interface UdpSocket {
  readonly fd: FileDescriptor;
  /** Whether runs of datagrams are received as one message (UDP_GRO, Linux 5.0). */
  readonly receivesRuns: boolean;
  /** Whether a run of datagrams can be sent as one message (UDP_SEGMENT, Linux 4.18). */
  readonly sendsRuns: boolean;
}

/** Where a tunnel socket is bound, and how much it buffers. */
export interface OpenUdpSocketOptions {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  readonly port: number;
  /** Per direction; beyond the system's limit where permitted. */
  readonly bufferBytes: number;
}

/**
 * A UDP socket bound to one address; its calls do not block.
 *
 * @throws {SystemCallError} EADDRINUSE, EADDRNOTAVAIL.
 */
export function openUdpSocket(libc: Libc, options: OpenUdpSocketOptions): UdpSocket {
  const { address, port, bufferBytes } = options;
  const family = address.length === 4 ? sys.AF_INET : sys.AF_INET6;
  const fd = libc.socket(
    family,
    sys.SOCK_DGRAM | sys.SOCK_CLOEXEC | sys.SOCK_NONBLOCK,
    linux.IPPROTO_UDP,
  );
  try {
    if (family === sys.AF_INET6) libc.setSocketOption(fd, linux.IPPROTO_IPV6, linux.IPV6_V6ONLY, 1);
    libc.bind(fd, socketAddress(address, port));
    return adoptUdpSocket(libc, fd, bufferBytes);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** Takes over a socket that another process opened with {@linkcode openUdpSocket}. */
export function adoptUdpSocket(
  libc: Libc,
  fd: FileDescriptor,
  bufferBytes: number,
): UdpSocket {
  libc.setBuffer(fd, "receive", bufferBytes);
  libc.setBuffer(fd, "send", bufferBytes);
  // Whether the kernel knows these options.
  const set = (option: number, value: number) =>
    libc.trySocketOption(fd, linux.SOL_UDP, option, value, "ENOPROTOOPT");
  return {
    fd,
    receivesRuns: set(linux.UDP_GRO, 1),
    // Off by default, since each message sets its own; a kernel without it would send a run as one
    // long datagram.
    sendsRuns: set(linux.UDP_SEGMENT, 0),
  };
}

/**
 * A raw socket for packets with their own IP header: how ICMP errors leave. Written to the TUN
 * device they would arrive with one of this host's own addresses as source, which the kernel drops
 * as martian (fib_validate_source).
 */
export function openRawSocket(libc: Libc, family: 4 | 6): FileDescriptor {
  const domain = family === 4 ? sys.AF_INET : sys.AF_INET6;
  return libc.socket(
    domain,
    sys.SOCK_RAW | sys.SOCK_CLOEXEC | sys.SOCK_NONBLOCK,
    linux.IPPROTO_RAW,
  );
}
