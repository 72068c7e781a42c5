/**
 * The packet path without its Worker, and packets for it, for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Libc } from "../../ffi/libc/open.ts";
import { SOL_UDP, UDP_SEGMENT } from "../../ffi/tun/constants.ts";
import { openUdpSocket, socketAddress } from "../../ffi/tun/open.ts";
import { PacketIo } from "../../ffi/tun/packet_io.ts";
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { Egress, type PumpResult } from "../../src/dataplane/egress.ts";
import { createForwardingMemory, ForwardingReader } from "../../src/dataplane/forwarding_reader.ts";
import { ForwardingTable } from "../../src/dataplane/forwarding_table.ts";
import { IcmpSender } from "../../src/dataplane/icmp_sender.ts";
import { Ingress } from "../../src/dataplane/ingress.ts";
import {
  CONTROL,
  type Counters,
  createCounterMemory,
  readCounters,
} from "../../src/dataplane/shared_state.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { DatagramPeer } from "./datagrams.ts";
import { FakeDevice } from "./fake_device.ts";
import { type PacketFields, SAMPLE_PACKET } from "./reference.ts";

const { signal } = new AbortController();

/** What comes in. Own subnet 10.24.1.0/24; peer 10.24.2.0/24 at 127.0.0.2. */
export const PACKET = SAMPLE_PACKET;
/** What goes out. */
export const OUTBOUND: PacketFields = {
  ...PACKET,
  source: PACKET.destination,
  destination: PACKET.source,
};

export interface PacketPathOptions {
  readonly allowAnySource?: boolean;
  readonly natTraversal?: boolean;
  readonly nowSeconds?: () => number;
  readonly mtuBytes?: number;
  /** Error numbers of the first reads from the device. */
  readonly readErrors?: readonly number[];
}

/** The packet path without its Worker. */
export class PacketPath implements AsyncDisposable {
  readonly device = new FakeDevice();
  readonly #libc = Libc.open();
  readonly #io = new PacketIo();
  readonly #counterMemory = createCounterMemory();
  readonly #memory = createForwardingMemory();
  readonly #reader = new ForwardingReader(this.#memory);
  readonly forwarding = new ForwardingTable(this.#memory);
  readonly #socket: ReturnType<typeof openUdpSocket>;
  readonly port: number;
  /** A socket of the peer's address that sends runs. */
  readonly #runs: ReturnType<typeof openUdpSocket>;
  readonly #egress: Egress;
  readonly #ingress: Ingress;
  /** The peer's socket. */
  peer!: DatagramPeer;
  stranger!: DatagramPeer;

  constructor(options: PacketPathOptions = {}) {
    const { allowAnySource = false, natTraversal = false, mtuBytes = 1472 } = options;
    this.port = 20_000 + Math.floor(Math.random() * 10_000);
    this.#socket = openUdpSocket(this.#libc, {
      address: Uint8Array.of(127, 0, 0, 1),
      port: this.port,
      bufferBytes: 1 << 20,
    });
    this.#runs = openUdpSocket(this.#libc, {
      address: Uint8Array.of(127, 0, 0, 2),
      port: 0,
      bufferBytes: 1 << 20,
    });
    const io = this.#io;
    const counters = new Float64Array(this.#counterMemory);
    const control = new Int32Array(new SharedArrayBuffer(CONTROL.WORDS * 4));
    control[CONTROL.MTU] = mtuBytes;
    const reader = this.#reader;
    const icmp = new IcmpSender({ io, counters, control, rawV4: -1, rawV6: -1 });
    const readErrors = [...options.readErrors ?? []];
    let errno: number | undefined;
    this.#egress = new Egress({
      ...{ reader, counters, control, icmp },
      io: {
        readv: (...args) => (errno = readErrors.shift()) === undefined ? io.readv(...args) : -1,
        errno: () => errno ?? io.errno(),
        sendmmsg: io.sendmmsg,
        poll: io.poll,
      },
      eventfd: -1,
      onNotice: (text) => assert.fail(text),
    });
    this.#egress.setSockets(this.#socket.fd, -1, this.#socket.sendsRuns);
    const offloads = { tcp: true, udp: true };
    this.#ingress = new Ingress({
      ...{ io, reader, counters, icmp, offloads, allowAnySource, natTraversal },
      ...(options.nowSeconds ? { nowSeconds: options.nowSeconds } : {}),
    });
    this.#ingress.device = this.device.fd;
  }

  async open(): Promise<this> {
    this.peer = await DatagramPeer.open("127.0.0.2");
    this.stranger = await DatagramPeer.open("127.0.0.3");
    const { port } = this.peer;
    await this.forwarding.replace([
      { prefix: Prefix.parse("10.24.2.0/24"), address: Address.parse("127.0.0.2"), port },
      { prefix: Prefix.parse("10.24.3.0/24"), address: Address.parse("127.0.0.4"), port },
      { prefix: Prefix.parse("fd00:24:2::/64"), address: Address.parse("127.0.0.2"), port },
    ], { signal });
    return this;
  }

  send(from: DatagramPeer, datagram: Uint8Array): Promise<void> {
    return from.send(datagram, this.port, "127.0.0.1");
  }

  /** Sends datagrams of `segmentBytes` from the peer's address as one message. */
  sendRun(datagrams: Uint8Array<ArrayBuffer>, segmentBytes: number): void {
    const name = socketAddress(Uint8Array.of(127, 0, 0, 1), this.port);
    this.#libc.setSocketOption(this.#runs.fd, SOL_UDP, UDP_SEGMENT, segmentBytes);
    const length = BigInt(datagrams.length);
    const sent = this.#io.sendto(this.#runs.fd, datagrams, length, 0, name, name.length);
    assert.equal(sent, datagrams.length);
  }

  /** Carries what peers have sent; answers what came out at the device. */
  takeIn(): Uint8Array<ArrayBuffer>[] {
    this.#reader.begin();
    const received: Uint8Array<ArrayBuffer>[] = [];
    while (this.#ingress.pump(this.#socket.fd) !== "idle") {
      for (let packet = this.device.receive(); packet; packet = this.device.receive()) {
        received.push(packet);
      }
    }
    this.#reader.end();
    return received;
  }

  /** Carries what the device has to peers; answers how the last round went. */
  takeOut(): PumpResult {
    this.#reader.begin();
    let result: PumpResult;
    do result = this.#egress.pump(this.device.fd); while (
      result === "more" || result === "drained"
    );
    this.#reader.end();
    return result;
  }

  counters(): Counters {
    return readCounters(this.#counterMemory);
  }

  /** The drops since the start, without the zeros. */
  drops(): Record<string, number> {
    return Object.fromEntries(
      Object.entries(this.counters()).filter(([name, value]) => /^drop/.test(name) && value > 0),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#libc.close(this.#socket.fd);
    this.#libc.close(this.#runs.fd);
    this.device[Symbol.dispose]();
    this.#io[Symbol.dispose]();
    this.#libc[Symbol.dispose]();
    await this.peer[Symbol.asyncDispose]();
    await this.stranger[Symbol.asyncDispose]();
  }
}

/** A packet as the device hands it over. */
export function fromDevice(
  packet: Uint8Array,
  header: Partial<Record<Exclude<keyof typeof virtio_net_hdr, "size">, number>> = {},
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(virtio_net_hdr.size + packet.length);
  const words = new Uint16Array([
    header.hdr_len ?? 0,
    header.gso_size ?? 0,
    header.csum_start ?? 0,
    header.csum_offset ?? 0,
  ]);
  bytes[virtio_net_hdr.flags] = header.flags ?? 0;
  bytes[virtio_net_hdr.gso_type] = header.gso_type ?? 0;
  bytes.set(new Uint8Array(words.buffer), virtio_net_hdr.hdr_len);
  bytes.set(packet, virtio_net_hdr.size);
  return bytes;
}
