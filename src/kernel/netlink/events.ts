/**
 * Subscriptions to rtnetlink notifications. They wait in a poll on another thread, which an eventfd
 * ends.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../../ffi/byte_order.ts";
import * as sys from "../../../ffi/libc/constants.ts";
import type { BpfInstruction } from "../../../ffi/libc/open.ts";
import { ReceiveOverflowError } from "../../../ffi/libnl/errors.ts";
import { type Message, messagesIn } from "../../../ffi/libnl/messages.ts";
import type { NetlinkSocket } from "../../../ffi/libnl/open.ts";
import { nlmsghdr } from "../../../ffi/libnl/structs.ts";
import * as rt from "../../../ffi/libnl_route/constants.ts";
import { ifaddrmsg, ifinfomsg, ndmsg, rtmsg } from "../../../ffi/libnl_route/structs.ts";
import type { NetlinkEvent, NetlinkEventKind, NetlinkEvents } from "../netlink.ts";
import { decodeFdbEntry, decodeNeighbor, decodeNeighborAddress } from "./codec/neighbor.ts";
import { decodeRoute } from "./codec/route.ts";
import type { NetlinkTransport } from "./transport.ts";

/** Room for the events of some 10,000 foreign changes at once; more are reported as lost. */
const EVENT_BUFFER_BYTES = 4 << 20;

/** Events per step, so that a flood does not starve other work. */
const EVENTS_PER_STEP = 4_096;

const GROUPS: Readonly<Record<NetlinkEventKind, readonly number[]>> = {
  link: [rt.RTNLGRP_LINK],
  address: [rt.RTNLGRP_IPV4_IFADDR, rt.RTNLGRP_IPV6_IFADDR],
  route: [rt.RTNLGRP_IPV4_ROUTE, rt.RTNLGRP_IPV6_ROUTE],
  neighbor: [rt.RTNLGRP_NEIGH],
  fdb: [rt.RTNLGRP_NEIGH],
  rule: [rt.RTNLGRP_IPV4_RULE, rt.RTNLGRP_IPV6_RULE],
};
const EVENT_KINDS = Object.keys(GROUPS) as NetlinkEventKind[];

/**
 * A BPF program that drops notifications of changes made through `portId`, since thousands of own
 * routes would wake the process, or overflow the buffer. Link changes pass, since addresses and
 * routes go with a link without notifications of their own.
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
    [sys.BPF_LD | sys.BPF_W | sys.BPF_ABS, 0, 0, nlmsghdr.nlmsg_pid],
    [sys.BPF_JMP | sys.BPF_JEQ | sys.BPF_K, 0, 4, word(portId)],
    [sys.BPF_LD | sys.BPF_H | sys.BPF_ABS, 0, 0, nlmsghdr.nlmsg_type],
    [sys.BPF_JMP | sys.BPF_JEQ | sys.BPF_K, 2, 0, half(rt.RTM_NEWLINK)],
    [sys.BPF_JMP | sys.BPF_JEQ | sys.BPF_K, 1, 0, half(rt.RTM_DELLINK)],
    [sys.BPF_RET | sys.BPF_K, 0, 0, 0],
    [sys.BPF_RET | sys.BPF_K, 0, 0, 0xffffffff],
  ];
}

/**
 * Subscribes to changes by others than `transport`.
 *
 * @param options.onClose Called when the subscription has been disposed of.
 */
export function subscribeTo(
  transport: NetlinkTransport,
  { signal, kinds = EVENT_KINDS, onClose }: {
    readonly signal: AbortSignal;
    readonly kinds?: readonly NetlinkEventKind[];
    readonly onClose: () => void;
  },
): NetlinkEvents {
  signal.throwIfAborted();
  const { libc, portId } = transport;
  using stack = new DisposableStack();
  const socket = stack.use(transport.openSocket());
  libc.setBuffer(socket.fd, "receive", EVENT_BUFFER_BYTES);
  libc.attachFilter(socket.fd, ownChangesFilter(portId));
  socket.setNonblocking();
  for (const kind of kinds) for (const group of GROUPS[kind]) socket.join(group);
  const wake = stack.adopt(libc.eventfd(), (fd) => libc.close(fd));
  const resources = stack.move();
  let pendingPoll: Promise<unknown> | undefined;
  let closing: Promise<void> | undefined;
  const onAbort = () => {
    // Nothing else ends the poll on the other thread.
    if (!closing) libc.signalEventfd(wake);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  const close = async () => {
    signal.removeEventListener("abort", onAbort);
    libc.signalEventfd(wake);
    // The poll uses both descriptors: if they were closed now, their numbers could be reused.
    await pendingPoll;
    resources.dispose();
    onClose();
  };
  return {
    async *[Symbol.asyncIterator]() {
      for (;;) {
        signal.throwIfAborted();
        if (closing) throw new TypeError("Cannot wait for netlink events: closed");
        const events = drain(socket).filter(({ kind }) => kind === "lost" || kinds.includes(kind));
        if (events.length > 0) {
          yield events;
          continue;
        }
        if (pendingPoll) throw new TypeError("Cannot wait for netlink events twice at a time");
        pendingPoll = libc.pollReadable([socket.fd, wake]);
        try {
          await pendingPoll;
        } finally {
          pendingPoll = undefined;
        }
      }
    },
    [Symbol.asyncDispose]: () => closing ??= close(),
  };
}

/** What has arrived, without waiting. */
function drain(socket: NetlinkSocket): NetlinkEvent[] {
  const events: NetlinkEvent[] = [];
  while (events.length < EVENTS_PER_STEP) {
    try {
      const view = socket.receive();
      if (!view) break;
      for (const message of messagesIn(view)) {
        const event = readEvent(view, message);
        if (event) events.push(event);
      }
    } catch (error) {
      if (!(error instanceof ReceiveOverflowError)) throw error;
      events.push({ kind: "lost" });
    }
  }
  return events;
}

/** What a notification is about. */
function readEvent(
  view: DataView<ArrayBuffer>,
  message: Message,
): Exclude<NetlinkEvent, { kind: "lost" }> | undefined {
  const { type, start } = message;
  switch (type) {
    case rt.RTM_NEWLINK:
    case rt.RTM_DELLINK: {
      const linkIndex = view.getInt32(start + ifinfomsg.ifi_index, LITTLE_ENDIAN);
      // A port that leaves its bridge is RTM_DELLINK of family AF_BRIDGE; the link stays.
      const bridge = view.getUint8(start + ifinfomsg.ifi_family) === sys.AF_BRIDGE;
      return { kind: "link", removed: type === rt.RTM_DELLINK && !bridge, linkIndex };
    }
    case rt.RTM_NEWADDR:
    case rt.RTM_DELADDR: {
      const linkIndex = view.getUint32(start + ifaddrmsg.ifa_index, LITTLE_ENDIAN);
      return { kind: "address", removed: type === rt.RTM_DELADDR, linkIndex };
    }
    case rt.RTM_NEWROUTE:
    case rt.RTM_DELROUTE: {
      const route = decodeRoute(view, message);
      return {
        kind: "route",
        removed: type === rt.RTM_DELROUTE,
        protocol: view.getUint8(start + rtmsg.rtm_protocol),
        ...(route ? { route } : {}),
        ...(route && route.destination.length > 0 ? { destination: route.destination } : {}),
      };
    }
    case rt.RTM_NEWNEIGH:
    case rt.RTM_DELNEIGH: {
      const bridge = view.getUint8(start + ndmsg.ndm_family) === sys.AF_BRIDGE;
      const linkIndex = view.getInt32(start + ndmsg.ndm_ifindex, LITTLE_ENDIAN);
      const removed = type === rt.RTM_DELNEIGH;
      const entry = bridge
        ? decodeFdbEntry(view, message, linkIndex)
        : decodeNeighbor(view, message, linkIndex);
      const about = { removed, linkIndex, ...(entry ? { entry } : {}) };
      if (bridge) return { kind: "fdb", ...about };
      const address = decodeNeighborAddress(view, message);
      return { kind: "neighbor", ...about, ...(address ? { address } : {}) };
    }
    case rt.RTM_NEWRULE:
    case rt.RTM_DELRULE:
      return { kind: "rule", removed: type === rt.RTM_DELRULE };
  }
  return undefined;
}
