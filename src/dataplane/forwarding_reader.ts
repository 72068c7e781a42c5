/**
 * The forwarding table: prefix to peer, in memory that the main thread writes and the Worker
 * reads without locks. There are two generations: the writer fills the unused one and then flips a
 * word. While reading, the reader notes which generation it uses, so that the writer leaves it
 * alone. A lookup hashes once per prefix length in use, mostly one, and so costs the same for 10
 * peers as for 10,000.
 *
 * @module
 */
/** Prefixes that fit. */
export const MAX_ENTRIES = 65_536;

/** Noted by a reader that is not reading. */
export const IDLE = -1;

/** Words of the memory before the generations. The last bit of VERSION selects the one in use. */
export const TABLE = { VERSION: 0, IN_USE: 1, WORDS: 16 } as const;
/** Words before a generation's slots. */
export const GENERATION = {
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
  /** Written by the reader; 0 until a port was learnt. */
  LEARNT_PORT: 11,
  /** Written by the reader: the second of the last datagram from the port in use; 0 for none. */
  HEARD_AT: 12,
  WORDS: 13,
} as const;

const MAX_SLOTS = 2 * MAX_ENTRIES;
const GENERATION_WORDS = GENERATION.WORDS + MAX_SLOTS * SLOT.WORDS;

/** Memory for a table; untouched pages cost nothing. */
export function createForwardingMemory(): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((TABLE.WORDS + 2 * GENERATION_WORDS) * 4);
  new Int32Array(memory).fill(IDLE, TABLE.IN_USE, TABLE.IN_USE + 1);
  return memory;
}

/** Where the generation of a version begins. */
export function generationOffset(version: number): number {
  return TABLE.WORDS + (version & 1) * GENERATION_WORDS;
}

/** The hash of a prefix; masked, its first slot. */
export function hash(tag: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(a ^ tag, 0x9e3779b1);
  h = Math.imul(h ^ b ^ (h >>> 15), 0x85ebca6b);
  h = Math.imul(h ^ c ^ (h >>> 13), 0xc2b2ae35);
  h = Math.imul(h ^ d ^ (h >>> 16), 0x27d4eb2f);
  return (h ^ (h >>> 15)) >>> 0;
}

/** Masks of 0 to 32 leading bits. */
const MASKS = Int32Array.from({ length: 33 }, (_, bits) => bits === 0 ? 0 : -1 << (32 - bits));

/** The table as the Worker reads it. Lookups allocate nothing. */
export class ForwardingReader {
  /** All words of the memory; lookups return offsets into it, see {@linkcode SLOT}. */
  readonly words: Int32Array<SharedArrayBuffer>;
  #generation: number = TABLE.WORDS;
  #version = 0;

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
  }

  /** To be called before lookups, whose results stay valid until {@linkcode end}. */
  begin(): void {
    const { words } = this;
    let version = Atomics.load(words, TABLE.VERSION);
    for (;;) {
      Atomics.store(words, TABLE.IN_USE, version & 1);
      const now = Atomics.load(words, TABLE.VERSION);
      if (now === version) break;
      version = now;
    }
    this.#generation = generationOffset(version);
    this.#version = version;
  }

  /** Changes whenever the table was changed between two {@linkcode begin}. */
  get version(): number {
    return this.#version;
  }

  /** To be called before waiting. */
  end(): void {
    Atomics.store(this.words, TABLE.IN_USE, IDLE);
  }

  /** The slot of the longest prefix with the address at `at` in it, or -1. */
  lookup(view: DataView, at: number, ipv4: boolean): number {
    return ipv4 ? this.lookup4(view.getInt32(at)) : this.lookup6(
      view.getInt32(at),
      view.getInt32(at + 4),
      view.getInt32(at + 8),
      view.getInt32(at + 12),
    );
  }

  /** Like {@linkcode lookup}, for an IPv4 address as a word. */
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

  /** The first used slot at `place` or after it; -1 if there is none. */
  slotFrom(place: number): number {
    const { words } = this;
    const slots = this.#generation + GENERATION.WORDS;
    const count = words[this.#generation + GENERATION.MASK]! + 1;
    for (let i = place; i < count; i++) {
      if (words[slots + i * SLOT.WORDS + SLOT.TAG] !== 0) return slots + i * SLOT.WORDS;
    }
    return -1;
  }

  /** The place of `slot` in the table. */
  placeOf(slot: number): number {
    return (slot - this.#generation - GENERATION.WORDS) / SLOT.WORDS;
  }
}
