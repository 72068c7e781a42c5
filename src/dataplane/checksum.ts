/**
 * The Internet checksum (RFC 1071). Sums are in ones' complement and network order: 16-bit words
 * added with end-around carry, not yet inverted.
 *
 * @module
 */

/** Folds a sum below 2^31 to 16 bits. */
export function fold32(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/**
 * The sum of `length` (at most 65,536) bytes from `offset`, folded to 16 bits; a trailing odd byte
 * is the high half of a word. For machines that cannot do it as `checksum_module.ts` does.
 */
export function sumBytes(bytes: Uint8Array, offset: number, length: number): number {
  const end = offset + (length & ~1);
  let sum = (length & 1) === 0 ? 0 : bytes[end]! << 8;
  for (let at = offset; at < end; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  return fold32(sum);
}

/**
 * The checksum of a header after one of its 16-bit words changed from `before` to `after`
 * (RFC 1624, equation 3).
 */
export function updateChecksum(checksum: number, before: number, after: number): number {
  return ~fold32((~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff;
}
