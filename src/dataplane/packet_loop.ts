/** The Worker's loop. @module */
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import { POLLERR, POLLHUP, POLLIN, POLLNVAL } from "../../ffi/libc/constants.ts";
import { pollfd } from "../../ffi/libc/structs.ts";
import { PacketIo } from "../../ffi/tun/packet_io.ts";
import { Egress } from "./egress.ts";
import { ForwardingReader } from "./forwarding_reader.ts";
import { IcmpSender } from "./icmp_sender.ts";
import { Ingress } from "./ingress.ts";
import { KeepaliveSender } from "./keepalive_sender.ts";
import { CONTROL, COUNTER, type WorkerMessage, type WorkerSetup } from "./shared_state.ts";

/**
 * The Worker's nice value: all pods' packets wait for it, so it takes precedence over computation,
 * but not over the kernel's own threads.
 */
const NICE = -10;

/** Indexes of the poll set. */
const POLL = { EVENT: 0, TUN: 1, SOCKET_V4: 2, SOCKET_V6: 3, COUNT: 4 } as const;
/** The bit of a source in a set of sources. */
function bit(place: number): number {
  return 1 << place;
}
const EVERY_SOURCE = bit(POLL.TUN) | bit(POLL.SOCKET_V4) | bit(POLL.SOCKET_V6);

/**
 * Packets between two waits that make a stream. Then it pays to spin a little before sleeping,
 * since waking a thread on another processor takes longer than the next packet of a stream (tens of
 * microseconds on virtual machines). Single packets are not worth that.
 */
const STREAM_PACKETS = 32;
/**
 * How often to poll again before sleeping, yielding to other threads each time: some 30 µs if there
 * are none.
 */
const LOOKS = 20;

/**
 * Carries packets until told to stop. It reads only sources that poll(2) reports as ready, and
 * waits once they are drained; the main thread gets its attention through the eventfd among them.
 */
export function runPacketLoop(
  setup: WorkerSetup,
  tell: (message: WorkerMessage) => void,
): void {
  using io = new PacketIo();
  io.lowerNice(NICE); // without permission, it is one thread among others
  const control = new Int32Array(setup.control);
  const counters = new Float64Array(setup.counters);
  const reader = new ForwardingReader(setup.forwarding);
  const icmp = new IcmpSender({ io, counters, control, rawV4: setup.rawV4, rawV6: setup.rawV6 });
  const notices = new Set<string>();
  const onNotice = (text: string) => {
    if (!notices.has(text)) tell({ type: "notice", text });
    notices.add(text);
  };
  const { eventfd } = setup;
  const egress = new Egress({ io, reader, counters, control, icmp, eventfd, onNotice });
  const ingress = new Ingress({ ...setup, io, reader, counters, icmp });
  const keepalives = setup.natTraversal
    ? new KeepaliveSender({ io, reader, counters, control, eventfd, onNotice })
    : undefined;

  const poll = new Uint8Array(POLL.COUNT * pollfd.size);
  const pollView = new DataView(poll.buffer);
  const setPoll = (place: number, fd: number) => {
    // poll(2) ignores negative descriptors.
    pollView.setInt32(place * pollfd.size + pollfd.fd, fd, LITTLE_ENDIAN);
    pollView.setInt16(place * pollfd.size + pollfd.events, POLLIN, LITTLE_ENDIAN);
  };
  const revents = (place: number) =>
    pollView.getInt16(place * pollfd.size + pollfd.revents, LITTLE_ENDIAN);
  const eventCount = new Uint8Array(8);

  let tun = -1;
  let socket4 = -1;
  let socket6 = -1;
  const takeDescriptors = () => {
    const version = Atomics.load(control, CONTROL.DESCRIPTORS);
    tun = Atomics.load(control, CONTROL.TUN);
    socket4 = Atomics.load(control, CONTROL.SOCKET_V4);
    socket6 = Atomics.load(control, CONTROL.SOCKET_V6);
    egress.setSockets(socket4, socket6, Atomics.load(control, CONTROL.SENDS_RUNS) === 1);
    ingress.device = tun;
    keepalives?.setSockets(socket4, socket6);
    setPoll(POLL.EVENT, eventfd);
    setPoll(POLL.TUN, tun);
    setPoll(POLL.SOCKET_V4, socket4);
    setPoll(POLL.SOCKET_V6, socket6);
    Atomics.store(control, CONTROL.SEEN, version);
    Atomics.notify(control, CONTROL.SEEN);
  };
  const dropDevice = () => {
    if (tun < 0) return;
    tun = -1;
    ingress.device = -1;
    setPoll(POLL.TUN, -1);
    tell({ type: "device-gone" });
  };

  const pollCount = BigInt(POLL.COUNT);
  /** Waits up to `timeoutMs`, -1 for ever, and returns the sources that are ready. */
  const wait = (timeoutMs: number): number => {
    if (io.poll(poll, pollCount, timeoutMs) <= 0) return 0;
    if (revents(POLL.EVENT) !== 0) io.read(eventfd, eventCount, BigInt(eventCount.length));
    if ((revents(POLL.TUN) & (POLLERR | POLLHUP | POLLNVAL)) !== 0) dropDevice();
    let ready = 0;
    for (let place = POLL.TUN; place < POLL.COUNT; place++) {
      if (revents(place) !== 0) ready |= bit(place);
    }
    return ready;
  };
  const packets = () => counters[COUNTER.sentPackets]! + counters[COUNTER.receivedPackets]!;

  let ready = EVERY_SOURCE;
  /** Sources that were not drained. */
  let left = 0;
  let worked = false;
  const receive = (place: number, socket: number) => {
    if (socket < 0 || (ready & bit(place)) === 0) return;
    const result = ingress.pump(socket);
    if (result === "idle") return;
    worked = true;
    if (result === "more") left |= bit(place);
    // The kernel's own replies are in the device's queue already.
    ready |= bit(POLL.TUN);
  };

  takeDescriptors();
  let looks = 0;
  let packetsAtWait = 0;
  while (Atomics.load(control, CONTROL.STOP) === 0) {
    if (Atomics.load(control, CONTROL.DESCRIPTORS) !== control[CONTROL.SEEN]) {
      takeDescriptors();
      ready = EVERY_SOURCE;
    }
    reader.begin();
    left = 0;
    worked = false;
    receive(POLL.SOCKET_V4, socket4);
    receive(POLL.SOCKET_V6, socket6);
    if (tun >= 0 && (ready & bit(POLL.TUN)) !== 0) {
      const result = egress.pump(tun);
      worked ||= result === "more" || result === "drained";
      if (result === "more") left |= bit(POLL.TUN);
      if (result === "gone") dropDevice();
    }
    if (ingress.deviceGone) dropDevice();
    keepalives?.sendDue();
    if (worked) looks = 0;
    if (left !== 0) {
      ready = left | wait(0);
    } else if (packets() - packetsAtWait >= STREAM_PACKETS && looks < LOOKS) {
      looks++;
      io.schedYield();
      ready = wait(0);
    } else {
      reader.end();
      counters[COUNTER.wakeups]!++;
      packetsAtWait = packets();
      ready = wait(keepalives?.waitMs() ?? -1);
    }
  }
  reader.end();
}
