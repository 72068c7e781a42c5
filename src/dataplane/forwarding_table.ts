/**
 * The writer's side of the forwarding table; `forwarding_reader.ts` explains its layout.
 *
 * @module
 */
import { Address, addressBits, type Family, Prefix } from "../net/mod.ts";
import { delay } from "../util/time.ts";
import {
  GENERATION,
  generationOffset,
  hash,
  IDLE,
  MAX_ENTRIES,
  SLOT,
  TABLE,
} from "./forwarding_reader.ts";

/** Where packets for `prefix` go. */
export interface ForwardingEntry {
  readonly prefix: Prefix;
  /** The peer's public address. */
  readonly address: Address;
  readonly port: number;
}

/** An entry with what was learnt. */
export interface ActiveForwardingEntry extends ForwardingEntry {
  /** The port that the peer's datagrams come from; absent unless one was learnt. */
  readonly learntPort?: number;
}

/** The table as the main thread writes it. */
export class ForwardingTable {
  readonly #words: Int32Array<SharedArrayBuffer>;

  readonly #onChange: () => void;

  /** @param onChange Called after each change. */
  constructor(memory: SharedArrayBuffer, onChange: () => void = () => {}) {
    this.#words = new Int32Array(memory);
    this.#onChange = onChange;
  }

  /** Every entry in use, in no order. */
  entries(): ActiveForwardingEntry[] {
    const words = this.#words;
    const generation = generationOffset(words[TABLE.VERSION]!);
    const slots = generation + GENERATION.WORDS;
    const end = slots + (words[generation + GENERATION.MASK]! + 1) * SLOT.WORDS;
    const entries: ActiveForwardingEntry[] = [];
    for (let slot = slots; slot < end; slot += SLOT.WORDS) {
      const tag = words[slot + SLOT.TAG]!;
      if (tag === 0) continue;
      const learntPort = words[slot + SLOT.LEARNT_PORT]!;
      entries.push({
        prefix: new Prefix(readAddress(words, slot + SLOT.KEY, (tag >> 8) as Family), tag & 0xff),
        address: readAddress(
          words,
          slot + SLOT.PEER_ADDRESS,
          words[slot + SLOT.PEER_FAMILY] as Family,
        ),
        port: words[slot + SLOT.PEER_PORT]!,
        ...(learntPort === 0 ? {} : { learntPort }),
      });
    }
    return entries;
  }

  /**
   * Replaces all entries by `entries`, whose prefixes must differ, atomically for the reader.
   * Entries that stay keep their learnt port. Waits for the reader, at most for a batch of packets.
   * Calls must not overlap.
   *
   * @throws {RangeError} If there are more than {@linkcode MAX_ENTRIES}.
   */
  async replace(
    entries: readonly ForwardingEntry[],
    { signal }: { signal: AbortSignal },
  ): Promise<void> {
    if (entries.length > MAX_ENTRIES) {
      throw new RangeError(
        `Cannot forward to ${entries.length} prefixes: at most ${MAX_ENTRIES} fit`,
      );
    }
    const words = this.#words;
    const version = words[TABLE.VERSION]!;
    while (Atomics.load(words, TABLE.IN_USE) === ((version + 1) & 1)) await delay(1, { signal });
    const generation = generationOffset(version + 1);
    const slotCount = 2 ** Math.ceil(Math.log2(Math.max(2 * entries.length, 8)));
    const mask = slotCount - 1;
    words.fill(0, generation, generation + GENERATION.WORDS + slotCount * SLOT.WORDS);
    words[generation + GENERATION.MASK] = mask;
    const lengths = { 4: new Set<number>(), 6: new Set<number>() };
    const reader = new ActiveSlots(words, generationOffset(version));
    for (const { prefix, address, port } of entries) {
      lengths[prefix.family].add(prefix.length);
      const tag = prefix.family << 8 | prefix.length;
      const [a, b, c, d] = addressWords(prefix.address);
      const slots = generation + GENERATION.WORDS;
      let i = hash(tag, a, b, c, d) & mask;
      while (words[slots + i * SLOT.WORDS] !== 0) i = (i + 1) & mask;
      const slot = slots + i * SLOT.WORDS;
      words[slot + SLOT.TAG] = tag;
      words.set([a, b, c, d], slot + SLOT.KEY);
      words[slot + SLOT.PEER_FAMILY] = address.family;
      words[slot + SLOT.PEER_PORT] = port;
      words.set(addressWords(address), slot + SLOT.PEER_ADDRESS);
      const known = reader.sameSlot(slot);
      if (known >= 0) {
        words[slot + SLOT.LEARNT_PORT] = words[known + SLOT.LEARNT_PORT]!;
        words[slot + SLOT.HEARD_AT] = words[known + SLOT.HEARD_AT]!;
      }
    }
    for (
      const [family, count, place] of [
        [4, GENERATION.IPV4_LENGTHS, GENERATION.IPV4_LENGTH],
        [6, GENERATION.IPV6_LENGTHS, GENERATION.IPV6_LENGTH],
      ] as const
    ) {
      const longestFirst = [...lengths[family]].sort((x, y) => y - x);
      words[generation + count] = longestFirst.length;
      words.set(longestFirst, generation + place);
    }
    Atomics.store(words, TABLE.VERSION, (version + 1) | 0);
    this.#onChange();
  }

  /** Stops waiting for a reader that has died. */
  releaseReader(): void {
    Atomics.store(this.#words, TABLE.IN_USE, IDLE);
  }
}

/** Looks up the active counterpart of a slot of the next generation, with what was learnt. */
class ActiveSlots {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #generation: number;

  constructor(words: Int32Array<SharedArrayBuffer>, generation: number) {
    this.#words = words;
    this.#generation = generation;
  }

  /** The slot with the same prefix and peer, or -1. */
  sameSlot(slot: number): number {
    const words = this.#words;
    const mask = words[this.#generation + GENERATION.MASK]!;
    const slots = this.#generation + GENERATION.WORDS;
    const key = slot + SLOT.KEY;
    const start = hash(
      words[slot]!,
      words[key]!,
      words[key + 1]!,
      words[key + 2]!,
      words[key + 3]!,
    );
    for (let i = start & mask;; i = (i + 1) & mask) {
      const found = slots + i * SLOT.WORDS;
      if (words[found] === 0) return -1;
      let same = true;
      for (let word = 0; word < SLOT.LEARNT_PORT; word++) {
        if (words[found + word] !== words[slot + word]) same = false;
      }
      if (same) return found;
    }
  }
}

/** An address as four 32-bit words; IPv4 uses the first. */
export function addressWords(address: Address): [number, number, number, number] {
  const bytes = new DataView(address.toBytes().buffer);
  const word = (i: number) => i * 4 < bytes.byteLength ? bytes.getInt32(i * 4) : 0;
  return [word(0), word(1), word(2), word(3)];
}

function readAddress(words: Int32Array, at: number, family: Family): Address {
  const bytes = new DataView(new ArrayBuffer(addressBits(family) / 8));
  for (let i = 0; i * 4 < bytes.byteLength; i++) bytes.setInt32(i * 4, words[at + i]!);
  return Address.fromBytes(new Uint8Array(bytes.buffer));
}
