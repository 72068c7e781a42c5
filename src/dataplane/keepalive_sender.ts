/** Rounds of keepalives to all peers. @module */
import { addressOf } from "../../ffi/tun/packet_io.ts";
import { type ForwardingReader, SLOT } from "./forwarding_reader.ts";
import { KEEPALIVE_INTERVAL_MS, KEEPALIVE_PAUSE_MS, writeKeepalive } from "./keepalive.ts";
import { IPV6, PacketMemory } from "./packet.ts";
import { SendBatch, type SendBatchOptions } from "./send_batch.ts";
import { CONTROL, COUNTER } from "./shared_state.ts";

/** Keepalives sent at a time; then packets get their turn. */
const CHUNK = 64;
/** Pause between two chunks. */
const CHUNK_PAUSE_MS = 1;

export interface KeepaliveSenderOptions extends Omit<SendBatchOptions, "family" | "memoryAddress"> {
  readonly reader: ForwardingReader;
  readonly control: Int32Array;
  /** Milliseconds on a clock that never goes back. @default {performance.now} */
  readonly now?: () => number;
}

/** Sends each peer a keepalive now and then. */
export class KeepaliveSender {
  readonly #options: KeepaliveSenderOptions;
  readonly #now: () => number;
  readonly #memory = new PacketMemory(CHUNK * IPV6.HEADER_BYTES);
  readonly #batch4: SendBatch;
  readonly #batch6: SendBatch;
  readonly #peer4 = new Int32Array(1);
  readonly #peer6 = new Int32Array(4);
  #dueAtMs = 0;
  #begunAtMs = 0;
  #version = 0;
  /** The current round's place in the table; -1 between rounds. */
  #cursor = -1;

  constructor(options: KeepaliveSenderOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    const memoryAddress = addressOf(this.#memory.bytes);
    this.#batch4 = new SendBatch({ ...options, family: 4, memoryAddress });
    this.#batch6 = new SendBatch({ ...options, family: 6, memoryAddress });
  }

  /** The sockets to send through; -1 for none. */
  setSockets(ipv4: number, ipv6: number): void {
    this.#batch4.setSocket(ipv4, false);
    this.#batch6.setSocket(ipv6, false);
  }

  /** How long poll(2) may wait at most. */
  waitMs(): number {
    return this.#cursor >= 0 ? CHUNK_PAUSE_MS : Math.max(1, Math.ceil(this.#dueAtMs - this.#now()));
  }

  /** Sends the next chunk of a round, if it is due. */
  sendDue(): void {
    const { reader } = this.#options;
    if (reader.version !== this.#version) {
      // A new peer cannot reach this host until this host has sent it something.
      this.#version = reader.version;
      this.#dueAtMs = Math.min(this.#dueAtMs, this.#begunAtMs + KEEPALIVE_PAUSE_MS);
    }
    if (this.#cursor < 0) {
      const now = this.#now();
      if (now < this.#dueAtMs) return;
      this.#begunAtMs = now;
      this.#dueAtMs = now + KEEPALIVE_INTERVAL_MS;
      this.#cursor = 0;
    }
    this.#sendChunk();
  }

  #sendChunk(): void {
    const { reader, counters } = this.#options;
    for (let count = 0; count < CHUNK; count++) {
      const slot = reader.slotFrom(this.#cursor);
      if (slot < 0) {
        this.#cursor = -1;
        break;
      }
      // If the table has changed meanwhile, the round continues at the same place: what it skips is
      // covered by the round that follows every change.
      this.#cursor = reader.placeOf(slot) + 1;
      if (this.#add(slot, count * IPV6.HEADER_BYTES)) counters[COUNTER.keepalivesSent]!++;
    }
    this.#batch4.flush();
    this.#batch6.flush();
  }

  /** Adds a keepalive to the peer of `slot`, written at `at`; returns whether one is possible. */
  #add(slot: number, at: number): boolean {
    const { reader: { words }, control } = this.#options;
    const ipv4 = words[slot + SLOT.TAG]! >> 8 === 4;
    const own = ipv4
      ? control.subarray(CONTROL.OWN_IPV4, CONTROL.OWN_IPV4 + 1)
      : control.subarray(CONTROL.OWN_IPV6, CONTROL.OWN_IPV6 + 4);
    if (own.every((word) => word === 0)) return false;
    const peer = ipv4 ? this.#peer4 : this.#peer6;
    for (let i = 0; i < peer.length; i++) peer[i] = words[slot + SLOT.KEY + i]!;
    const length = writeKeepalive(this.#memory, at, own, peer);
    const batch = words[slot + SLOT.PEER_FAMILY] === 4 ? this.#batch4 : this.#batch6;
    batch.reserve();
    batch.add(slot, at, length, 0, 0);
    return true;
  }
}
