/**
 * The Internet checksum (RFC 1071) over memory that packets lie in. Sums are in ones' complement
 * and network order: 16-bit words added with end-around carry, not yet inverted.
 *
 * @module
 */

/** Whether this machine is little-endian. */
const LOW_FIRST = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Folds a sum below 2^31 to 16 bits. */
export function fold32(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Sums over one block of memory, in 32-bit reads wherever possible. */
export class Checksum {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;

  /** `memory`'s length must be a multiple of 4. */
  constructor(memory: ArrayBuffer) {
    this.#bytes = new Uint8Array(memory);
    this.#words = new Int32Array(memory);
  }

  /**
   * The sum of `length` (at most 65,536) bytes from `offset`, folded to 16 bits, as if they began
   * at an even offset; a trailing odd byte is the high half of a word.
   */
  sum(offset: number, length: number): number {
    const bytes = this.#bytes;
    const words = this.#words;
    const end = offset + length;
    let at = offset;
    // Summed as host-order words at even addresses, and byte-swapped at the end (RFC 1071, 2B).
    let first = 0; // bytes at even addresses
    let second = 0;
    while (at < end && (at & 3) !== 0) {
      if ((at & 1) === 0) first += bytes[at]!;
      else second += bytes[at]!;
      at++;
    }
    // Halves are summed apart: 16,384 words of 16 bits stay below 2^30.
    let low0 = 0;
    let high0 = 0;
    let low1 = 0;
    let high1 = 0;
    let word = at >> 2;
    const wordEnd = (end - 3) > at ? end >> 2 : word;
    for (; word + 4 <= wordEnd; word += 4) {
      const a = words[word]!;
      const b = words[word + 1]!;
      const c = words[word + 2]!;
      const d = words[word + 3]!;
      low0 = (low0 + (a & 0xffff) + (c & 0xffff)) | 0;
      high0 = (high0 + (a >>> 16) + (c >>> 16)) | 0;
      low1 = (low1 + (b & 0xffff) + (d & 0xffff)) | 0;
      high1 = (high1 + (b >>> 16) + (d >>> 16)) | 0;
    }
    for (; word < wordEnd; word++) {
      low0 = (low0 + (words[word]! & 0xffff)) | 0;
      high0 = (high0 + (words[word]! >>> 16)) | 0;
    }
    for (at = Math.max(at, word << 2); at < end; at++) {
      if ((at & 1) === 0) first += bytes[at]!;
      else second += bytes[at]!;
    }
    const edges = LOW_FIRST ? first + second * 256 : first * 256 + second;
    const sum = fold32(low0 + high0 + low1 + high1 + edges);
    // The byte at `offset` is to be a high half.
    const inPlace = ((offset & 1) === 0) !== LOW_FIRST;
    return inPlace ? sum : ((sum & 0xff) << 8) | (sum >>> 8);
  }
}

/**
 * The checksum of a header after one of its 16-bit words changed from `before` to `after`
 * (RFC 1624, equation 3).
 */
export function updateChecksum(checksum: number, before: number, after: number): number {
  return ~fold32((~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff;
}
