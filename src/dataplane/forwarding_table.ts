/**
 * The forwarding table: prefix to peer, in memory that the main thread writes and Workers read
 * without locks. There are two generations of it; the writer fills the one not in use and then
 * flips a word. A reader notes which one it reads, for as long as it does, so that the writer never
 * changes it under its hands. Lookups hash once per prefix length there is, mostly one, and so cost
 * the same for 10 peers as for 10,000.
 *
 * @module
 */
import { Address, addressBits, type Family, Prefix } from "../net/mod.ts";
import { delay } from "../util/time.ts";

/** Where packets for `prefix` go. */
export interface ForwardingEntry {
  readonly prefix: Prefix;
  /** The peer's public address. */
  readonly address: Address;
  readonly port: number;
}

/** An entry as it is in use. */
export interface ActiveForwardingEntry extends ForwardingEntry {
  /** The port that the peer's datagrams come from; absent unless one was learnt. */
  readonly learntPort?: number;
}

/** Prefixes that fit. */
export const MAX_ENTRIES = 65_536;

/** Workers that may read one table. */
const MAX_READERS = 8;
const IDLE = -1;

/** Words of the memory before the generations. */
const CONTROL = { VERSION: 0, IN_USE: 1, WORDS: 16 } as const;
/** Words before a generation's slots. */
const GENERATION = {
  MASK: 0,
  IPV4_LENGTHS: 1,
  IPV6_LENGTHS: 2,
  IPV4_LENGTH: 4,
  IPV6_LENGTH: 4 + 33,
  WORDS: 176,
} as const;
/** Words of a slot: a prefix and its peer. */
export const SLOT = {
  /** Family times 256, plus length; 0 for an empty slot. */
  TAG: 0,
  KEY: 1,
  PEER_FAMILY: 5,
  PEER_PORT: 6,
  /** The peer's address, four words of which IPv4 uses the first. */
  PEER_ADDRESS: 7,
  /** Written by readers; 0 until something was learnt. */
  LEARNT_PORT: 11,
  WORDS: 12,
} as const;

const MAX_SLOTS = 2 * MAX_ENTRIES;
const GENERATION_WORDS = GENERATION.WORDS + MAX_SLOTS * SLOT.WORDS;

/** Memory for a table; pages that nobody writes to take none. */
export function createForwardingMemory(): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((CONTROL.WORDS + 2 * GENERATION_WORDS) * 4);
  new Int32Array(memory).fill(IDLE, CONTROL.IN_USE, CONTROL.IN_USE + MAX_READERS);
  return memory;
}

function generationOffset(version: number): number {
  return CONTROL.WORDS + (version & 1) * GENERATION_WORDS;
}

function hash(tag: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(a ^ tag, 0x9e3779b1);
  h = Math.imul(h ^ b ^ (h >>> 15), 0x85ebca6b);
  h = Math.imul(h ^ c ^ (h >>> 13), 0xc2b2ae35);
  h = Math.imul(h ^ d ^ (h >>> 16), 0x27d4eb2f);
  return (h ^ (h >>> 15)) >>> 0;
}

/** Masks of 0 to 32 leading bits. */
const MASKS = Int32Array.from({ length: 33 }, (_, bits) => bits === 0 ? 0 : -1 << (32 - bits));

/** The table as a Worker reads it. Nothing is allocated by a lookup. */
export class ForwardingReader {
  /** All words of the memory; lookups answer places in it, to be used with {@linkcode SLOT}. */
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly #inUse: number;
  #generation: number = CONTROL.WORDS;

  /** @param index A number of this reader's own, below 8. */
  constructor(memory: SharedArrayBuffer, index: number) {
    if (index < 0 || index >= MAX_READERS) throw new RangeError(`Cannot have reader ${index}`);
    this.words = new Int32Array(memory);
    this.#inUse = CONTROL.IN_USE + index;
  }

  /** To be called before lookups; what they answer stays as it is until {@linkcode end}. */
  begin(): void {
    const { words } = this;
    let version = Atomics.load(words, CONTROL.VERSION);
    for (;;) {
      Atomics.store(words, this.#inUse, version & 1);
      const now = Atomics.load(words, CONTROL.VERSION);
      if (now === version) break;
      version = now;
    }
    this.#generation = generationOffset(version);
  }

  /** To be called before waiting. */
  end(): void {
    Atomics.store(this.words, this.#inUse, IDLE);
  }

  /** The slot of the longest prefix with `address` in it, or -1. */
  lookup4(address: number): number {
    const { words } = this;
    const generation = this.#generation;
    const count = words[generation + GENERATION.IPV4_LENGTHS]!;
    for (let i = 0; i < count; i++) {
      const length = words[generation + GENERATION.IPV4_LENGTH + i]!;
      const slot = this.#probe(0x400 | length, address & MASKS[length]!, 0, 0, 0);
      if (slot >= 0) return slot;
    }
    return -1;
  }

  /** Like {@linkcode lookup4}, for the four words of an IPv6 address. */
  lookup6(a: number, b: number, c: number, d: number): number {
    const { words } = this;
    const generation = this.#generation;
    const count = words[generation + GENERATION.IPV6_LENGTHS]!;
    for (let i = 0; i < count; i++) {
      const length = words[generation + GENERATION.IPV6_LENGTH + i]!;
      const slot = this.#probe(
        0x600 | length,
        a & MASKS[Math.min(length, 32)]!,
        b & MASKS[Math.min(Math.max(length - 32, 0), 32)]!,
        c & MASKS[Math.min(Math.max(length - 64, 0), 32)]!,
        d & MASKS[Math.max(length - 96, 0)]!,
      );
      if (slot >= 0) return slot;
    }
    return -1;
  }

  #probe(tag: number, a: number, b: number, c: number, d: number): number {
    const { words } = this;
    const mask = words[this.#generation + GENERATION.MASK]!;
    const slots = this.#generation + GENERATION.WORDS;
    for (let i = hash(tag, a, b, c, d) & mask;; i = (i + 1) & mask) {
      const slot = slots + i * SLOT.WORDS;
      const found = words[slot + SLOT.TAG]!;
      if (found === 0) return -1;
      if (
        found === tag && words[slot + SLOT.KEY] === a && words[slot + SLOT.KEY + 1] === b &&
        words[slot + SLOT.KEY + 2] === c && words[slot + SLOT.KEY + 3] === d
      ) return slot;
    }
  }

  /** The port that packets to the peer of `slot` go to. */
  portOf(slot: number): number {
    return this.words[slot + SLOT.LEARNT_PORT]! || this.words[slot + SLOT.PEER_PORT]!;
  }

  /** Slots of the table from `cursor` (0 at first) on: the next one in use, or -1 at the end. */
  nextSlot(cursor: number): number {
    const { words } = this;
    const slots = this.#generation + GENERATION.WORDS;
    const end = slots + (words[this.#generation + GENERATION.MASK]! + 1) * SLOT.WORDS;
    for (let slot = cursor === 0 ? slots : cursor + SLOT.WORDS; slot < end; slot += SLOT.WORDS) {
      if (words[slot + SLOT.TAG] !== 0) return slot;
    }
    return -1;
  }
}

/** The table as the main thread, its only writer, has it. */
export class ForwardingTable {
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  /** Every entry in use, in no order. */
  entries(): ActiveForwardingEntry[] {
    const words = this.#words;
    const generation = generationOffset(words[CONTROL.VERSION]!);
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
   * Puts `entries`, no two of one prefix, in place of all there are, at once for every reader.
   * Ports that were learnt stay with an entry that stays. Waits for readers, which takes as long as
   * one of them needs for a batch of packets. Calls must not overlap.
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
    const version = words[CONTROL.VERSION]!;
    while (this.#isRead((version + 1) & 1)) await delay(1, { signal });
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
      words[slot + SLOT.LEARNT_PORT] = reader.learntPort(slot);
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
    Atomics.store(words, CONTROL.VERSION, (version + 1) | 0);
  }

  #isRead(generation: number): boolean {
    for (let i = 0; i < MAX_READERS; i++) {
      if (Atomics.load(this.#words, CONTROL.IN_USE + i) === generation) return true;
    }
    return false;
  }
}

/** Finds in the generation in use what the readers learnt about a slot of the next one. */
class ActiveSlots {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #generation: number;

  constructor(words: Int32Array<SharedArrayBuffer>, generation: number) {
    this.#words = words;
    this.#generation = generation;
  }

  /** The learnt port of the slot with the same prefix and peer, or 0. */
  learntPort(slot: number): number {
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
      if (words[found] === 0) return 0;
      let same = true;
      for (let word = 0; word < SLOT.LEARNT_PORT; word++) {
        if (words[found + word] !== words[slot + word]) same = false;
      }
      if (same) return words[found + SLOT.LEARNT_PORT]!;
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
