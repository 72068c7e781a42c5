/** The packet path as the main thread sees it: starts, steers and stops its Worker. @module */
import { Libc } from "../../ffi/libc/open.ts";
import type { FileDescriptor } from "../../ffi/libc/open.ts";
import { openRawSocket, type TunQueue, type UdpSocket } from "../../ffi/tun/open.ts";
import type { Address } from "../net/mod.ts";
import { delay } from "../util/time.ts";
import { createForwardingMemory } from "./forwarding_reader.ts";
import { addressWords, ForwardingTable } from "./forwarding_table.ts";
import {
  CONTROL,
  type Counters,
  createCounterMemory,
  readCounters,
  type WorkerMessage,
  type WorkerSetup,
} from "./shared_state.ts";

export interface TunnelOptions {
  readonly allowAnySource: boolean;
  readonly natTraversal: boolean;
  /** Families of inner packets, which get ICMP errors. */
  readonly families: readonly (4 | 6)[];
  /** Called once for each thing that this kernel or link cannot do. */
  readonly onNotice: (text: string) => void;
  /** Called when the TUN device has been removed. */
  readonly onDeviceGone: () => void;
  /** Called when the Worker has failed; no packets pass after that. */
  readonly onFault: (error: Error) => void;
}

/** The descriptors that packets pass through; the tunnel uses them but never closes them. */
export interface TunnelDescriptors {
  readonly tun: TunQueue | undefined;
  readonly socketV4: UdpSocket | undefined;
  readonly socketV6: UdpSocket | undefined;
}

/** The source of ICMP errors and keepalives, and how large packets may be. */
export interface TunnelIdentity {
  readonly mtuBytes: number;
  /** Bases of the own subnets. */
  readonly ipv4?: Address;
  readonly ipv6?: Address;
}

/** Per socket and direction: what a fast link delivers while the Worker is not scheduled. */
export const SOCKET_BUFFER_BYTES = 4 << 20;
/** Packets queued in the device during a restart: two seconds at one per millisecond. */
export const TRANSMIT_QUEUE_PACKETS = 2_000;

/** How long the Worker may take to stop. */
const STOP_LIMIT_MS = 900;

/** Makes a tunnel; packets pass after {@linkcode Tunnel.start}. */
export function openTunnel(options: TunnelOptions): Tunnel {
  return new Tunnel(options);
}

export class Tunnel implements AsyncDisposable {
  readonly #options: TunnelOptions;
  readonly #libc = Libc.open();
  readonly #control = new SharedArrayBuffer(CONTROL.WORDS * 4);
  readonly #words = new Int32Array(this.#control);
  readonly #forwardingMemory = createForwardingMemory();
  readonly #counters = createCounterMemory();
  #worker: RunningWorker | undefined;
  readonly #raw: { 4: number; 6: number } = { 4: -1, 6: -1 };
  #disposed = false;
  /** Where packets go. Changes do not stall the Worker. */
  readonly forwarding = new ForwardingTable(this.#forwardingMemory, () => this.#wake());

  constructor(options: TunnelOptions) {
    this.#options = options;
    this.#words.fill(-1, CONTROL.TUN, CONTROL.SOCKET_V6 + 1);
    for (const family of options.families) this.#raw[family] = openRawSocket(this.#libc, family);
  }

  get started(): boolean {
    return this.#worker !== undefined;
  }

  /** Starts the Worker, which takes the packets that wait in the descriptors' queues first. */
  start(offloads: { readonly tcp: boolean; readonly udp: boolean }): void {
    if (this.started || this.#disposed) throw new Error("Cannot start tunnel: it was started");
    const eventfd = this.#libc.eventfd();
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      type: "module",
      name: "packets",
    });
    const { promise: stopped, resolve } = Promise.withResolvers<void>();
    const running: RunningWorker = { worker, eventfd, stopped, failed: false };
    worker.onmessage = ({ data }: MessageEvent<WorkerMessage>) => {
      if (data.type === "notice") this.#options.onNotice(data.text);
      else if (data.type === "device-gone") this.#options.onDeviceGone();
      else resolve();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      // It will not respond any more, so nothing may wait for it.
      running.failed = true;
      this.forwarding.releaseReader();
      resolve();
      this.#options.onFault(new Error(`Cannot carry packets: ${event.message}`));
    };
    const setup: WorkerSetup = {
      control: this.#control,
      counters: this.#counters,
      forwarding: this.#forwardingMemory,
      eventfd,
      rawV4: this.#raw[4],
      rawV6: this.#raw[6],
      offloads,
      allowAnySource: this.#options.allowAnySource,
      natTraversal: this.#options.natTraversal,
    };
    worker.postMessage(setup);
    this.#worker = running;
  }

  /**
   * Switches to other descriptors; resolves when the Worker no longer uses the former ones, so that
   * they may be closed.
   */
  async setDescriptors(
    { tun, socketV4, socketV6 }: TunnelDescriptors,
    { signal }: { signal: AbortSignal },
  ): Promise<void> {
    const words = this.#words;
    Atomics.store(words, CONTROL.TUN, tun?.fd ?? -1);
    Atomics.store(words, CONTROL.SOCKET_V4, socketV4?.fd ?? -1);
    Atomics.store(words, CONTROL.SOCKET_V6, socketV6?.fd ?? -1);
    const sendsRuns = (socketV4?.sendsRuns ?? true) && (socketV6?.sendsRuns ?? true);
    Atomics.store(words, CONTROL.SENDS_RUNS, Number(sendsRuns));
    const version = Atomics.add(words, CONTROL.DESCRIPTORS, 1) + 1;
    this.#wake();
    const seen = () => Atomics.load(words, CONTROL.SEEN) === version;
    const worker = this.#worker;
    while (worker && !worker.failed && !seen()) await delay(1, { signal });
  }

  /** Takes effect with the next packet. */
  setIdentity({ mtuBytes, ipv4, ipv6 }: TunnelIdentity): void {
    const words = this.#words;
    Atomics.store(words, CONTROL.MTU, mtuBytes);
    words.set(ipv4 ? addressWords(ipv4).slice(0, 1) : [0], CONTROL.OWN_IPV4);
    words.set(ipv6 ? addressWords(ipv6) : [0, 0, 0, 0], CONTROL.OWN_IPV6);
  }

  /** What has passed and what was dropped since the start. */
  counters(): Counters {
    return readCounters(this.#counters);
  }

  #wake(): void {
    if (this.#worker) this.#libc.signalEventfd(this.#worker.eventfd);
  }

  /** Stops the Worker. The descriptors stay open, and packets wait in them. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    Atomics.store(this.#words, CONTROL.STOP, 1);
    this.#wake();
    const limit = new AbortController();
    const timeout = delay(STOP_LIMIT_MS, limit).catch(() => {});
    await Promise.race([this.#worker?.stopped, timeout]);
    limit.abort();
    await timeout;
    if (this.#worker) {
      this.#worker.worker.terminate();
      this.#libc.close(this.#worker.eventfd);
    }
    for (const fd of Object.values(this.#raw)) {
      if (fd >= 0) this.#libc.close(fd as FileDescriptor);
    }
    this.#libc[Symbol.dispose]();
  }
}

interface RunningWorker {
  readonly worker: Worker;
  readonly eventfd: FileDescriptor;
  readonly stopped: Promise<void>;
  /** Whether it has failed. */
  failed: boolean;
}
