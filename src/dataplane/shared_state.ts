/**
 * Memory that the main thread and the Worker share, since the Worker in its loop takes no messages:
 * control words and counters.
 *
 * @module
 */

/** Words of the control memory. */
export const CONTROL = {
  /** 1: leave the loop. */
  STOP: 0,
  /** Counts changes of the descriptors below; the Worker notes what it has seen. */
  DESCRIPTORS: 1,
  /** Descriptors; -1 for none. */
  TUN: 2,
  SOCKET_V4: 3,
  SOCKET_V6: 4,
  /** Of the tunnel, in bytes. */
  MTU: 5,
  /** Bases of the own subnets, the source of ICMP errors; 0 for none. */
  OWN_IPV4: 6,
  OWN_IPV6: 7,
  /** The last value of DESCRIPTORS that the Worker has taken over. */
  SEEN: 11,
  /** 1: the sockets take runs of datagrams as one message. Goes with the descriptors. */
  SENDS_RUNS: 19,
  WORDS: 32,
} as const;

/** Every counter, in memory order, by its name in `/status`. */
export const COUNTERS = [
  // From the TUN device to peers.
  "sentPackets",
  "sentBytes",
  "sentDatagramRuns",
  "sendCalls",
  "tunReads",
  // From peers to the TUN device.
  "receivedPackets",
  "receivedBytes",
  "receivedDatagramRuns",
  "receiveCalls",
  "tunWrites",
  // Neither here nor there.
  "icmpSent",
  "keepalivesSent",
  "keepalivesReceived",
  "portsLearnt",
  "portsNotLearnt",
  "wakeups",
  // Dropped, by reason.
  "dropNoPeer",
  "dropMulticast",
  "dropTtl",
  "dropTooLong",
  "dropMalformed",
  "dropUnknownSender",
  "dropForeignSource",
  "dropSocketFull",
  "dropSendError",
  "dropTunFull",
  "dropTunError",
] as const;

export type CounterName = (typeof COUNTERS)[number];

/** The index of each counter. */
export const COUNTER = Object.fromEntries(
  COUNTERS.map((name, index) => [name, index]),
) as { readonly [Name in CounterName]: number };

export type Counters = { readonly [Name in CounterName]: number };

/** Memory for the counters, which only the Worker writes; they are exact up to 2^53. */
export function createCounterMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(COUNTERS.length * 8);
}

/** The present values. */
export function readCounters(memory: SharedArrayBuffer): Counters {
  const view = new Float64Array(memory);
  return Object.fromEntries(COUNTERS.map((name, i) => [name, view[i]!])) as Counters;
}

/** What the Worker is started with. */
export interface WorkerSetup {
  readonly control: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  readonly forwarding: SharedArrayBuffer;
  /** Wakes the Worker. */
  readonly eventfd: number;
  /** Raw sockets for ICMP errors; -1 for none. */
  readonly rawV4: number;
  readonly rawV6: number;
  readonly offloads: {
    /** The TUN device takes large TCP, and large UDP packets. */
    readonly tcp: boolean;
    readonly udp: boolean;
  };
  /** Accepts datagrams from any sender with any inner source. */
  readonly allowAnySource: boolean;
  /** Learns peers' ports and keeps own mappings open. */
  readonly natTraversal: boolean;
}

/** What the Worker reports. */
export type WorkerMessage =
  /** For the log, such as a missing offload. */
  | { readonly type: "notice"; readonly text: string }
  /** The TUN device has gone. */
  | { readonly type: "device-gone" }
  | { readonly type: "stopped" };
