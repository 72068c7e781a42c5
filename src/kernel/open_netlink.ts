/**
 * {@linkcode Netlink} over the kernel's rtnetlink.
 *
 * The kernel works through a request while it is sent, which is done on another thread, and then
 * its answers are there. Subscriptions wait in a poll on another thread that an eventfd ends.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import {
  BPF_ABS,
  BPF_H,
  BPF_JEQ,
  BPF_JMP,
  BPF_K,
  BPF_LD,
  BPF_RET,
  BPF_W,
  SOL_NETLINK,
} from "../../ffi/libc/constants.ts";
import { SystemCallError } from "../../ffi/libc/errors.ts";
import { type BpfInstruction, type FileDescriptor, Libc } from "../../ffi/libc/open.ts";
import {
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_CREATE,
  NLM_F_DUMP_INTR,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_OVERRUN,
  NLMSGERR_ATTR_MSG,
} from "../../ffi/libnl/constants.ts";
import { AF_BRIDGE } from "../../ffi/libnl/constants.ts";
import {
  DumpInterruptedError,
  NetlinkError,
  ReceiveOverflowError,
} from "../../ffi/libnl/errors.ts";
import {
  Attributes,
  forEachMessage,
  type MessageBounds,
  MessageWriter,
} from "../../ffi/libnl/messages.ts";
import { type Libnl, type NetlinkSocket, openLibnl } from "../../ffi/libnl/open.ts";
import { nlmsgerr, nlmsghdr } from "../../ffi/libnl/structs.ts";
import {
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_DELNEIGH,
  RTM_DELROUTE,
  RTM_DELRULE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTM_NEWRULE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_IPV6_RULE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
} from "../../ffi/libnl_route/constants.ts";
import { type LibnlRoute, openLibnlRoute } from "../../ffi/libnl_route/open.ts";
import {
  buildLinkAdd,
  buildLinkChange,
  buildLinkRemove,
  buildRule,
} from "../../ffi/libnl_route/requests.ts";
import { ifaddrmsg, ifinfomsg, ndmsg, rtmsg } from "../../ffi/libnl_route/structs.ts";
import type { Address } from "../net/mod.ts";
import { inSlices } from "../util/slices.ts";
import { Backoff, delay } from "../util/time.ts";
import {
  type FdbEntry,
  formatRequest,
  type Link,
  type LinkAddress,
  type Neighbor,
  type Netlink,
  type NetlinkEvent,
  type NetlinkEventKind,
  type NetlinkEvents,
  type NetlinkRequest,
  type Route,
  type RouteLookup,
  type Rule,
} from "./netlink.ts";
import {
  addressFamily,
  decodeAddress,
  decodeFdbEntry,
  decodeLink,
  decodeNeighbor,
  decodeRoute,
  decodeRouteDestination,
  decodeRule,
  encodeAddress,
  encodeAddressDump,
  encodeFdbDump,
  encodeLinkDump,
  encodeNeighbor,
  encodeNeighborDump,
  encodeRoute,
  encodeRouteDump,
  encodeRouteGet,
  encodeRuleDump,
} from "./netlink_codec.ts";

/** Options of {@linkcode openNetlink}. */
export interface OpenNetlinkOptions {
  /** File of another network namespace to work in, such as `/run/netns/x`. */
  readonly namespace?: string;
}

/**
 * Requests of one datagram. Only the last asks for an acknowledgement (errors come anyway), and
 * all errors of a datagram fit the smallest receive buffer: about 2 KiB each of 208 KiB doubled.
 */
const BATCH_REQUESTS = 128;

/** The kernel answers at once; this only keeps a fault in that from hanging the process. */
const RECEIVE_TIMEOUT_MS = 5_000;

const RECEIVE_BUFFER_BYTES = 1 << 20;

/** Room for the events of some 10,000 changes made by others at once; beyond, "lost" is said. */
const EVENT_BUFFER_BYTES = 4 << 20;

/** Times that an interrupted dump is tried. Each takes milliseconds, changes come in bursts. */
const DUMP_ATTEMPTS = 10;

/** Events handed over in one step, so that a flood does not keep other work waiting. */
const EVENTS_PER_STEP = 4_096;

/**
 * Opens the kernel's network configuration. Needs CAP_NET_ADMIN to change anything.
 *
 * @throws {LibraryNotFoundError} If libnl is missing, naming its packages.
 */
export function openNetlink(options: OpenNetlinkOptions = {}): Netlink {
  using stack = new DisposableStack();
  const libc = stack.use(Libc.open());
  const libnl = stack.use(openLibnl(libc));
  const netlink = new KernelNetlink(libc, libnl, options);
  stack.move(); // now its own
  return netlink;
}

type Decode<T> = (view: DataView<ArrayBuffer>, message: MessageBounds) => T | undefined;

/** Requests written for one datagram. */
interface Batch {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Places in the list of requests by sequence number. */
  readonly indexes: ReadonlyMap<number, number>;
  /** The sequence number that is acknowledged. */
  readonly last: number;
  readonly first: number;
  readonly end: number;
}

/** How a request went: the kernel's error number, 0 for success. */
interface Outcome {
  readonly errno: number;
  readonly detail?: string | undefined;
}

class KernelNetlink implements Netlink {
  readonly #libc: Libc;
  readonly #libnl: Libnl;
  readonly #options: OpenNetlinkOptions;
  readonly #subscriptions = new Set<Subscription>();
  /** Opened when a link or rule is first written: most backends never do. */
  #libnlRoute: LibnlRoute | undefined;
  #socket: NetlinkSocket | undefined;
  #sequence = 0;
  /** Settles when the exchange that was begun last is over; it never rejects. */
  #last: Promise<void> = Promise.resolve();
  #disposed = false;

  constructor(libc: Libc, libnl: Libnl, options: OpenNetlinkOptions) {
    this.#libc = libc;
    this.#libnl = libnl;
    this.#options = options;
    this.#socket = this.#openRequestSocket();
  }

  #openSocket(): NetlinkSocket {
    const { namespace } = this.#options;
    const open = () => this.#libnl.openSocket();
    return namespace ? this.#libc.inNetworkNamespace(namespace, open) : open();
  }

  #openRequestSocket(): NetlinkSocket {
    const socket = this.#openSocket();
    try {
      this.#libc.setReceiveBuffer(socket.fd, RECEIVE_BUFFER_BYTES);
      this.#libc.setReceiveTimeout(socket.fd, RECEIVE_TIMEOUT_MS);
      // Linux 4.12: explanations with errors; 4.3: errors without the request; 4.20: dumps filtered
      // by the kernel. Older ones lack nothing but that.
      for (const option of [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK]) {
        this.#setOptional(socket.fd, option);
      }
      return socket;
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  #setOptional(fd: FileDescriptor, option: number): void {
    try {
      this.#libc.setSocketOption(fd, SOL_NETLINK, option, 1);
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.code !== "ENOPROTOOPT") throw error;
    }
  }

  get #requests(): NetlinkSocket {
    if (this.#disposed) throw new TypeError("Cannot use netlink: it is closed");
    return this.#socket ??= this.#openRequestSocket();
  }

  get #route(): LibnlRoute {
    return this.#libnlRoute ??= openLibnlRoute(this.#libnl);
  }

  /**
   * Sends `bytes` and hands each answer to `visit` until it returns true; one exchange at a time.
   * If the transport fails, the socket is given up: answers that are still to come would confuse
   * the next request.
   */
  async #exchange(
    bytes: Uint8Array<ArrayBuffer>,
    visit: (view: DataView<ArrayBuffer>, message: MessageBounds) => boolean,
  ): Promise<void> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    try {
      await before;
      await this.#exchangeNow(bytes, visit);
    } finally {
      resolve();
    }
  }

  async #exchangeNow(
    bytes: Uint8Array<ArrayBuffer>,
    visit: (view: DataView<ArrayBuffer>, message: MessageBounds) => boolean,
  ): Promise<void> {
    const socket = this.#requests;
    try {
      await socket.send(bytes);
      for (let done = false; !done;) {
        const view = socket.receive();
        if (!view) {
          throw new Error(
            `Cannot read from netlink: the kernel did not answer within ${RECEIVE_TIMEOUT_MS} ms`,
          );
        }
        forEachMessage(view, (message) => {
          if (message.type === NLMSG_OVERRUN) {
            throw new ReceiveOverflowError("Cannot receive from netlink: messages were lost");
          }
          done = visit(view, message) || done;
        });
      }
    } catch (error) {
      this.#socket = undefined;
      socket[Symbol.dispose]();
      throw error;
    }
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0 || 1;
    return this.#sequence;
  }

  /** The messages of one dump. @throws {DumpInterruptedError} */
  async #dumpOnce(
    operation: string,
    encode: (writer: MessageWriter, sequence: number) => void,
  ): Promise<readonly HeldDatagram[]> {
    const datagrams: HeldDatagram[] = [];
    let received: DataView<ArrayBuffer> | undefined;
    let messages: MessageBounds[];
    const sequence = this.#nextSequence();
    const writer = new MessageWriter();
    encode(writer, sequence);
    let interrupted = false;
    let errno = 0;
    await this.#exchange(writer.bytes, (view, message) => {
      if (message.sequence !== sequence) return false;
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
      if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
        // Both carry an int: 0 or a negative error number.
        const size = message.end - message.start;
        errno = size >= 4 ? -view.getInt32(message.start, LITTLE_ENDIAN) : 0;
        return true;
      }
      if (view !== received) {
        // The datagram's memory is used again for the next one.
        const end = view.byteOffset + view.byteLength;
        messages = [];
        datagrams.push({ view: new DataView(view.buffer.slice(view.byteOffset, end)), messages });
        received = view;
      }
      messages.push(message);
      return false;
    });
    if (errno > 0) throw new NetlinkError(operation, errno);
    if (interrupted) {
      throw new DumpInterruptedError(`${operation}: it changed while it was read`);
    }
    return datagrams;
  }

  async #dump<T>(
    noun: string,
    encode: (writer: MessageWriter, sequence: number) => void,
    decode: Decode<T>,
    { signal }: { signal: AbortSignal },
  ): Promise<T[]> {
    const backoff = new Backoff({ initialMs: 2, maxMs: 100 });
    for (;;) {
      signal.throwIfAborted();
      try {
        const datagrams = await this.#dumpOnce(`Cannot list ${noun}`, encode);
        // The dump itself cannot be parted: its socket is for nothing else until it is over.
        if (datagrams.length >= LONG_DUMP_DATAGRAMS) await delay(0, { signal });
        return await inSlices(decodeInSteps(datagrams, decode), { signal });
      } catch (error) {
        const again = error instanceof DumpInterruptedError ||
          error instanceof ReceiveOverflowError;
        if (!again || backoff.failures + 1 >= DUMP_ATTEMPTS) throw error;
      }
      await backoff.wait({ signal });
    }
  }

  /** A dump per family; one that this kernel does not have is empty. */
  async #dumpFamilies<T>(
    noun: string,
    encode: (family: 4 | 6) => (writer: MessageWriter, sequence: number) => void,
    decode: (family: 4 | 6) => Decode<T>,
    options: { signal: AbortSignal },
  ): Promise<T[]> {
    const values: T[][] = [];
    for (const family of [4, 6] as const) {
      try {
        values.push(await this.#dump(noun, encode(family), decode(family), options));
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error;
        // ENOENT: the routing table asked for does not exist, which is to say it is empty.
        if (error.code !== "ENOENT" && error.code !== "EAFNOSUPPORT") throw error;
      }
    }
    return values.flat();
  }

  listLinks(options: { signal: AbortSignal }): Promise<readonly Link[]> {
    return this.#dump("links", encodeLinkDump, only(RTM_NEWLINK, decodeLink), options);
  }

  listAddresses(options: { signal: AbortSignal }): Promise<readonly LinkAddress[]> {
    return this.#dump("addresses", encodeAddressDump, only(RTM_NEWADDR, decodeAddress), options);
  }

  listRoutes(options: { signal: AbortSignal; table: number }): Promise<readonly Route[]> {
    const { table } = options;
    return this.#dumpFamilies(
      `routes of table ${table}`,
      (family) => (writer, sequence) => encodeRouteDump(writer, { family, table }, sequence),
      (family) =>
        only(RTM_NEWROUTE, (view, message) => decodeRoute(view, message, { family, table })),
      options,
    );
  }

  listNeighbors(
    options: { signal: AbortSignal; linkIndex: number },
  ): Promise<readonly Neighbor[]> {
    const { linkIndex } = options;
    return this.#dumpFamilies(
      `neighbours of link index ${linkIndex}`,
      (family) => (writer, sequence) => encodeNeighborDump(writer, { family, linkIndex }, sequence),
      (family) =>
        only(
          RTM_NEWNEIGH,
          (view, message) =>
            view.getUint8(message.start + ndmsg.ndm_family) === addressFamily(family)
              ? decodeNeighbor(view, message, linkIndex)
              : undefined,
        ),
      options,
    );
  }

  async listFdb(
    options: { signal: AbortSignal; linkIndex: number },
  ): Promise<readonly FdbEntry[]> {
    const { linkIndex } = options;
    try {
      return await this.#dump(
        `forwarding entries of link index ${linkIndex}`,
        (writer, sequence) => encodeFdbDump(writer, linkIndex, sequence),
        only(RTM_NEWNEIGH, (view, message) => decodeFdbEntry(view, message, linkIndex)),
        options,
      );
    } catch (error) {
      // The link went away a moment ago: its entries are gone with it.
      if (error instanceof NetlinkError && error.code === "ENODEV") return [];
      throw error;
    }
  }

  listRules(options: { signal: AbortSignal }): Promise<readonly Rule[]> {
    return this.#dumpFamilies(
      "rules",
      (family) => (writer, sequence) => encodeRuleDump(writer, family, sequence),
      () => only(RTM_NEWRULE, decodeRule),
      options,
    );
  }

  async routeGet(
    address: Address,
    { signal, ...lookup }: RouteLookup & { signal: AbortSignal },
  ): Promise<Route> {
    signal.throwIfAborted();
    const operation = `Cannot find the route to ${address}`;
    const sequence = this.#nextSequence();
    const writer = new MessageWriter();
    encodeRouteGet(writer, address, sequence, lookup);
    let route: Route | undefined;
    let outcome: Outcome = { errno: 0 };
    await this.#exchange(writer.bytes, (view, message) => {
      if (message.sequence !== sequence) return false;
      if (message.type === NLMSG_ERROR) outcome = readOutcome(view, message);
      else if (message.type === RTM_NEWROUTE) route = decodeRoute(view, message);
      return true;
    });
    if (!route) throw new NetlinkError(operation, outcome.errno, outcome.detail);
    return route;
  }

  async routeGetAll(
    addresses: readonly Address[],
    { signal }: { signal: AbortSignal },
  ): Promise<readonly (Route | Error)[]> {
    const answers: (Route | Error)[] = [];
    for (let first = 0; first < addresses.length; first += BATCH_REQUESTS) {
      signal.throwIfAborted();
      answers.push(...await this.#routeGetBatch(addresses.slice(first, first + BATCH_REQUESTS)));
    }
    return answers;
  }

  async #routeGetBatch(addresses: readonly Address[]): Promise<readonly (Route | Error)[]> {
    const writer = new MessageWriter();
    const indexes = new Map<number, number>();
    addresses.forEach((address, i) => {
      const sequence = this.#nextSequence();
      indexes.set(sequence, i);
      encodeRouteGet(writer, address, sequence);
    });
    const answers = new Map<number, Route | Error>();
    await this.#exchange(writer.bytes, (view, message) => {
      const index = indexes.get(message.sequence);
      if (index === undefined) return false;
      if (message.type === NLMSG_ERROR) {
        const { errno, detail } = readOutcome(view, message);
        const operation = `Cannot find the route to ${addresses[index]}`;
        answers.set(index, new NetlinkError(operation, errno, detail));
      } else if (message.type === RTM_NEWROUTE) {
        const route = decodeRoute(view, message);
        if (route) answers.set(index, route);
      }
      indexes.delete(message.sequence);
      return indexes.size === 0;
    });
    return addresses.map((address, i) =>
      answers.get(i) ?? new Error(`Cannot find the route to ${address}: the answer is not known`)
    );
  }

  async change(
    requests: readonly NetlinkRequest[],
    { signal }: { signal: AbortSignal },
  ): Promise<readonly (Error | undefined)[]> {
    const errors = requests.map((): Error | undefined => undefined);
    const writers = [new MessageWriter(), new MessageWriter()] as const;
    let batch = this.#encodeBatch(writers[0], requests, 0, errors);
    for (let i = 1; batch.first < requests.length; i++) {
      signal.throwIfAborted();
      const sending = this.#sendBatch(batch, requests, errors);
      // The next one is written while the kernel works through this one.
      batch = this.#encodeBatch(writers[i % 2]!, requests, batch.end, errors);
      await sending;
    }
    return errors;
  }

  /** Writes the next of `requests`, for one datagram; notes which cannot be written. */
  #encodeBatch(
    writer: MessageWriter,
    requests: readonly NetlinkRequest[],
    first: number,
    errors: (Error | undefined)[],
  ): Batch {
    writer.clear();
    const indexes = new Map<number, number>();
    const end = Math.min(first + BATCH_REQUESTS, requests.length);
    let last = 0;
    for (let i = first; i < end; i++) {
      const sequence = this.#nextSequence();
      try {
        this.#encode(writer, requests[i]!, sequence);
        indexes.set(sequence, i);
        last = sequence;
      } catch (error) {
        errors[i] = error instanceof Error ? error : new Error(String(error));
      }
    }
    if (indexes.size > 0) writer.addFlags(NLM_F_ACK);
    return { bytes: writer.bytes, indexes, last, first, end };
  }

  /** Sends what was written as one datagram and notes its requests' errors. */
  async #sendBatch(
    { bytes, indexes, last }: Batch,
    requests: readonly NetlinkRequest[],
    errors: (Error | undefined)[],
  ): Promise<void> {
    if (indexes.size === 0) return;
    let acknowledged = 0;
    try {
      await this.#exchange(bytes, (view, message) => {
        const index = indexes.get(message.sequence);
        if (message.type !== NLMSG_ERROR || index === undefined) return false;
        acknowledged = message.sequence;
        const { errno, detail } = readOutcome(view, message);
        if (errno !== 0) {
          errors[index] = new NetlinkError(
            `Cannot ${formatRequest(requests[index]!)}`,
            errno,
            detail,
          );
        }
        return message.sequence === last;
      });
    } catch (cause) {
      // The kernel worked through the datagram before it answered; which of these failed is lost.
      for (const [sequence, index] of indexes) {
        if (errors[index] !== undefined || sequence <= acknowledged) continue;
        const request = formatRequest(requests[index]!);
        errors[index] = new Error(`Cannot tell whether this worked: ${request}`, { cause });
      }
    }
  }

  #encode(writer: MessageWriter, request: NetlinkRequest, sequence: number): void {
    switch (request.noun) {
      case "route":
        return encodeRoute(writer, request.verb, request.value, sequence);
      case "neighbor":
      case "fdb":
        return encodeNeighbor(writer, request.verb, request.value, sequence);
      case "address":
        return encodeAddress(writer, request.verb, request.value, sequence);
      case "rule": {
        const flags = request.verb === "add" ? NLM_F_CREATE | NLM_F_EXCL : 0;
        const { from, to, family, ...rest } = request.value;
        const message = buildRule(this.#route, request.verb, {
          ...rest,
          family: addressFamily(family),
          ...(from ? { from: { bytes: from.address.toBytes(), prefixLength: from.length } } : {}),
          ...(to ? { to: { bytes: to.address.toBytes(), prefixLength: to.length } } : {}),
        }, flags);
        return writer.append(message, NLM_F_REQUEST | flags, sequence);
      }
      case "link": {
        const flags = request.verb === "add" ? NLM_F_CREATE | NLM_F_EXCL : 0;
        return writer.append(this.#linkMessage(request), NLM_F_REQUEST | flags, sequence);
      }
    }
  }

  #linkMessage(request: NetlinkRequest & { noun: "link" }): Uint8Array {
    switch (request.verb) {
      case "remove":
        return buildLinkRemove(this.#route, request.value.index);
      case "set": {
        const { index, mtuBytes, mac, up, alias, vxlan } = request.value;
        return buildLinkChange(this.#route, {
          index,
          ...(mtuBytes === undefined ? {} : { mtuBytes }),
          ...(mac ? { mac: mac.toBytes() } : {}),
          ...(up ? { up } : {}),
          ...(alias === undefined ? {} : { alias }),
          ...(vxlan
            ? {
              kind: "vxlan",
              vxlan: {
                ...(vxlan.learning === undefined ? {} : { learning: vxlan.learning }),
                ...(vxlan.underlayIndex ? { underlayIndex: vxlan.underlayIndex } : {}),
                ...(vxlan.local ? { local: { bytes: vxlan.local.toBytes() } } : {}),
              },
            }
            : {}),
        });
      }
      case "add": {
        const { name, kind, mtuBytes, mac, vxlan, ipip } = request.value;
        return buildLinkAdd(this.#route, {
          name,
          kind,
          mtuBytes,
          up: true,
          // Tunnels have no queue of their own: packets wait where they leave the host.
          txQueueLength: 0,
          ...(mac ? { mac: mac.toBytes() } : {}),
          ...(ipip ? { ipip: { local: ipip.local.toBytes() } } : {}),
          ...(vxlan
            ? {
              vxlan: {
                vni: vxlan.vni,
                port: vxlan.port,
                learning: vxlan.learning,
                gbp: vxlan.gbp,
                ...(vxlan.underlayIndex ? { underlayIndex: vxlan.underlayIndex } : {}),
                ...(vxlan.local ? { local: { bytes: vxlan.local.toBytes() } } : {}),
              },
            }
            : {}),
        }, NLM_F_CREATE | NLM_F_EXCL);
      }
    }
  }

  subscribe(
    options: { signal: AbortSignal; kinds?: readonly NetlinkEventKind[] },
  ): NetlinkEvents {
    options.signal.throwIfAborted();
    const ownPort = this.#requests.portId;
    using stack = new DisposableStack();
    const socket = stack.use(this.#openSocket());
    this.#libc.setReceiveBuffer(socket.fd, EVENT_BUFFER_BYTES);
    this.#libc.attachFilter(socket.fd, ownChangesFilter(ownPort));
    socket.setNonblocking();
    const kinds = new Set(options.kinds ?? EVENT_KINDS);
    for (const kind of kinds) for (const group of GROUPS[kind]) socket.join(group);
    const wake = this.#libc.eventfd();
    const subscription = new Subscription(this.#libc, socket, wake, kinds, options.signal, () => {
      this.#subscriptions.delete(subscription);
    });
    stack.move(); // the subscription's own
    this.#subscriptions.add(subscription);
    return subscription;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await Promise.all([...this.#subscriptions].map((each) => each[Symbol.asyncDispose]()));
    await this.#last; // another thread may be using the socket
    this.#socket?.[Symbol.dispose]();
    this.#libnlRoute?.[Symbol.dispose]();
    this.#libnl[Symbol.dispose]();
    this.#libc[Symbol.dispose]();
  }
}

/** A datagram and its messages. */
interface HeldDatagram {
  readonly view: DataView<ArrayBuffer>;
  readonly messages: readonly MessageBounds[];
}

/** A dump of so many takes some milliseconds. Each holds some hundreds of messages. */
const LONG_DUMP_DATAGRAMS = 16;

/** What `decode` makes of the messages. A datagram of them takes some tenths of a millisecond. */
function* decodeInSteps<T>(
  datagrams: readonly HeldDatagram[],
  decode: Decode<T>,
): Generator<void, T[]> {
  const values: T[] = [];
  for (const { view, messages } of datagrams) {
    for (const message of messages) {
      const value = decode(view, message);
      if (value !== undefined) values.push(value);
    }
    yield;
  }
  return values;
}

/** `decode` for messages of `type` alone. */
function only<T>(type: number, decode: Decode<T>): Decode<T> {
  return (view, message) => message.type === type ? decode(view, message) : undefined;
}

const ackAttributes = new Attributes(NLMSGERR_ATTR_MSG);

/** An NLMSG_ERROR message. */
function readOutcome(view: DataView<ArrayBuffer>, message: MessageBounds): Outcome {
  const errno = -view.getInt32(message.start + nlmsgerr.error, LITTLE_ENDIAN);
  if (errno === 0 || (message.flags & NLM_F_ACK_TLVS) === 0) return { errno };
  // Attributes follow the request's header, or the whole request unless it was left out.
  const request = message.start + nlmsgerr.msg;
  const length = (message.flags & NLM_F_CAPPED) !== 0
    ? nlmsghdr.size
    : view.getUint32(request + nlmsghdr.nlmsg_len, LITTLE_ENDIAN);
  const start = request + ((length + 3) & ~3);
  return { errno, detail: ackAttributes.parse(view, start, message.end).string(NLMSGERR_ATTR_MSG) };
}

const GROUPS: Readonly<Record<NetlinkEventKind, readonly number[]>> = {
  link: [RTNLGRP_LINK],
  address: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR],
  route: [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
  neighbor: [RTNLGRP_NEIGH],
  fdb: [RTNLGRP_NEIGH],
  rule: [RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE],
};
const EVENT_KINDS = Object.keys(GROUPS) as NetlinkEventKind[];

/**
 * A BPF program that drops notifications of changes made through `portId`: thousands of own routes
 * would else wake the process, or overflow the buffer. Link changes stay, since they take addresses
 * and routes with them of which the kernel does not tell.
 */
function ownChangesFilter(portId: number): BpfInstruction[] {
  const swapped = new DataView(new ArrayBuffer(4));
  const word = (value: number) => {
    swapped.setUint32(0, value, LITTLE_ENDIAN);
    return swapped.getUint32(0, false);
  };
  const half = (value: number) => {
    swapped.setUint16(0, value, LITTLE_ENDIAN);
    return swapped.getUint16(0, false);
  };
  return [
    [BPF_LD | BPF_W | BPF_ABS, 0, 0, nlmsghdr.nlmsg_pid],
    [BPF_JMP | BPF_JEQ | BPF_K, 0, 4, word(portId)],
    [BPF_LD | BPF_H | BPF_ABS, 0, 0, nlmsghdr.nlmsg_type],
    [BPF_JMP | BPF_JEQ | BPF_K, 2, 0, half(RTM_NEWLINK)],
    [BPF_JMP | BPF_JEQ | BPF_K, 1, 0, half(RTM_DELLINK)],
    [BPF_RET | BPF_K, 0, 0, 0],
    [BPF_RET | BPF_K, 0, 0, 0xffffffff],
  ];
}

class Subscription implements NetlinkEvents {
  readonly #libc: Libc;
  readonly #socket: NetlinkSocket;
  readonly #wake: FileDescriptor;
  readonly #kinds: ReadonlySet<NetlinkEventKind>;
  readonly #signal: AbortSignal;
  readonly #onClose: () => void;
  #pendingPoll: Promise<unknown> | undefined;
  #closing: Promise<void> | undefined;

  constructor(
    libc: Libc,
    socket: NetlinkSocket,
    wake: FileDescriptor,
    kinds: ReadonlySet<NetlinkEventKind>,
    signal: AbortSignal,
    onClose: () => void,
  ) {
    this.#libc = libc;
    this.#socket = socket;
    this.#wake = wake;
    this.#kinds = kinds;
    this.#signal = signal;
    this.#onClose = onClose;
    signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  readonly #onAbort = () => {
    // The thread that is blocked in poll cannot be told otherwise.
    if (!this.#closing) this.#libc.signalEventfd(this.#wake);
  };

  async *[Symbol.asyncIterator](): AsyncGenerator<readonly NetlinkEvent[], void, void> {
    for (;;) {
      this.#signal.throwIfAborted();
      if (this.#closing) throw new TypeError("Cannot wait for netlink events: closed");
      const events = this.#drain();
      if (events.length > 0) {
        yield events;
        continue;
      }
      if (this.#pendingPoll) {
        throw new TypeError("Cannot wait for netlink events twice at a time");
      }
      this.#pendingPoll = this.#libc.pollReadable([this.#socket.fd, this.#wake]);
      try {
        await this.#pendingPoll;
      } finally {
        this.#pendingPoll = undefined;
      }
    }
  }

  /** What has arrived, without waiting. */
  #drain(): NetlinkEvent[] {
    const events: NetlinkEvent[] = [];
    while (events.length < EVENTS_PER_STEP) {
      try {
        const view = this.#socket.receive();
        if (!view) break;
        forEachMessage(view, (message) => {
          const event = readEvent(view, message);
          if (event && this.#kinds.has(event.kind)) events.push(event);
        });
      } catch (error) {
        if (!(error instanceof ReceiveOverflowError)) throw error;
        events.push({ kind: "lost" });
      }
    }
    return events;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#libc.signalEventfd(this.#wake);
    // The poll uses both descriptors: closed under it, their numbers might be given anew.
    await this.#pendingPoll;
    this.#socket[Symbol.dispose]();
    this.#libc.close(this.#wake);
    this.#onClose();
  }
}

/** What a notification is about; read from its header, and a route's destination. */
function readEvent(
  view: DataView<ArrayBuffer>,
  message: MessageBounds,
): Exclude<NetlinkEvent, { kind: "lost" }> | undefined {
  const { type, start } = message;
  switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      const linkIndex = view.getInt32(start + ifinfomsg.ifi_index, LITTLE_ENDIAN);
      // A port that leaves its bridge is RTM_DELLINK of family AF_BRIDGE; the link stays.
      const bridge = view.getUint8(start + ifinfomsg.ifi_family) === AF_BRIDGE;
      return { kind: "link", removed: type === RTM_DELLINK && !bridge, linkIndex };
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      const linkIndex = view.getUint32(start + ifaddrmsg.ifa_index, LITTLE_ENDIAN);
      return { kind: "address", removed: type === RTM_DELADDR, linkIndex };
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const protocol = view.getUint8(start + rtmsg.rtm_protocol);
      const destination = decodeRouteDestination(view, message);
      return {
        kind: "route",
        removed: type === RTM_DELROUTE,
        protocol,
        ...(destination ? { destination } : {}),
      };
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const bridge = view.getUint8(start + ndmsg.ndm_family) === AF_BRIDGE;
      const linkIndex = view.getInt32(start + ndmsg.ndm_ifindex, LITTLE_ENDIAN);
      return { kind: bridge ? "fdb" : "neighbor", removed: type === RTM_DELNEIGH, linkIndex };
    }
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return { kind: "rule", removed: type === RTM_DELRULE };
  }
  return undefined;
}
