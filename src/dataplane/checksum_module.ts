/**
 * The sum of `checksum.ts` as a WebAssembly function with vector instructions: it dominates the
 * packet path's computing, and is several times as fast as the same loop in JavaScript
 * (`tests/bench/udp.ts`). It is assembled by hand, since the build has no compiler.
 *
 * ```text
 * sum(at, length):
 *   end := at + (length & ~63)
 *   while at < end: for each of four vectors at `at`, in turn into one of two sets of lanes:
 *     lanes += pairwise sums of the vector's eight 16-bit words, less 32,768 each
 *     at += 64
 *   end := at + (length & 48)
 *   while at < end: the same for one vector; at += 16
 *   total := the four lanes of both, added, and 32,768 for each word; rest := length & 15
 *   while rest >= 2: total += word at `at`; at += 2; rest -= 2
 *   if rest: total += byte at `at`
 *   fold twice to 16 bits; swap the bytes, since WebAssembly's words are little-endian
 * ```
 *
 * @module
 */

/** Opcodes, as the WebAssembly core specification names them (section 5.4, Instructions). */
const op = {
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  end: 0x0b,
  br: 0x0c,
  br_if: 0x0d,
  local_get: 0x20,
  local_set: 0x21,
  i32_load8_u: 0x2d,
  i32_load16_u: 0x2f,
  i32_const: 0x41,
  i32_ge_u: 0x4f,
  i32_lt_u: 0x49,
  i32_add: 0x6a,
  i32_and: 0x71,
  i32_or: 0x72,
  i32_sub: 0x6b,
  i32_shl: 0x74,
  i32_shr_u: 0x76,
  simd: 0xfd,
} as const;
/** Opcodes behind {@linkcode op.simd}, in LEB128. */
const simd = {
  v128_load: [0x00],
  i32x4_extract_lane: [0x1b],
  v128_const: [0x0c],
  v128_xor: [0x51],
  i32x4_dot_i16x8_s: [0xba, 0x01],
  i32x4_add: [0xae, 0x01],
} as const;
const type = { i32: 0x7f, v128: 0x7b, func: 0x60, none: 0x40 } as const;

/** Locals: two parameters, then our own. */
const AT = 0;
const LENGTH = 1;
const END = 2;
const TOTAL = 3;
const LANES = 4;
const MORE_LANES = 5;
const SIGNS = 6;
const ONES = 7;

const get = (local: number) => [op.local_get, local];
const set = (local: number) => [op.local_set, local];
/** -64 to 63: one byte of signed LEB128. */
const small = (value: number) => [op.i32_const, value & 0x7f];
/** -8192 to 8191: two bytes of it. */
const medium = (value: number) => [op.i32_const, (value & 0x7f) | 0x80, (value >> 7) & 0x7f];
/** 65,535 in signed LEB128. */
const word = [op.i32_const, 0xff, 0xff, 0x03];
/** 255 in signed LEB128. */
const octet = [op.i32_const, 0xff, 0x01];
const advance = (local: number, by: number) => [
  ...get(local),
  ...(by < 64 ? small(by) : medium(by)),
  op.i32_add,
  ...set(local),
];
const eightWords = (low: number, high: number) => [
  ...[op.simd, ...simd.v128_const],
  ...Array.from({ length: 8 }, () => [low, high]).flat(),
];
/**
 * Adds the eight words at AT and `offset` (below 128) to `lanes`, each less 32,768: flipping its
 * top bit does that and makes it signed, and the dot product of signed words with ones adds pairs.
 */
const addVector = (lanes: number, offset: number) => [
  ...[...get(lanes), ...get(AT), op.simd, ...simd.v128_load, 0, offset],
  ...[...get(SIGNS), op.simd, ...simd.v128_xor],
  ...[...get(ONES), op.simd, ...simd.i32x4_dot_i16x8_s],
  ...[op.simd, ...simd.i32x4_add, ...set(lanes)],
];
/** Repeats `once`, which moves AT by `step`, until AT has come to END. */
const untilEnd = (step: number, once: readonly number[]) => [
  ...[op.block, type.none, op.loop, type.none],
  ...[...get(AT), ...get(END), op.i32_ge_u, op.br_if, 1],
  ...once,
  ...[...advance(AT, step), op.br, 0, op.end, op.end],
];
const lane = (index: number) => [
  ...get(LANES),
  op.simd,
  ...simd.i32x4_extract_lane,
  index,
];
const fold = [
  ...[...get(TOTAL), ...word, op.i32_and],
  ...[...get(TOTAL), ...small(16), op.i32_shr_u, op.i32_add],
  ...set(TOTAL),
];
/** Alignment 2^0 and offset 0: packets lie anywhere. */
const anywhere = [0, 0];

const body = [
  ...[...eightWords(0x00, 0x80), ...set(SIGNS), ...eightWords(0x01, 0x00), ...set(ONES)],
  // end := at + (length & ~63)
  ...[...get(AT), ...get(LENGTH), ...medium(-64), op.i32_and, op.i32_add, ...set(END)],
  ...untilEnd(64, [
    ...[...addVector(LANES, 0), ...addVector(MORE_LANES, 16)],
    ...[...addVector(LANES, 32), ...addVector(MORE_LANES, 48)],
  ]),
  // end := at + (length & 48)
  ...[...get(AT), ...get(LENGTH), ...small(48), op.i32_and, op.i32_add, ...set(END)],
  ...untilEnd(16, addVector(LANES, 0)),
  ...[...get(LANES), ...get(MORE_LANES), op.simd, ...simd.i32x4_add, ...set(LANES)],
  // total := the lanes, added; 65,536 bytes of words add up to less than 2^32
  ...[...lane(0), ...lane(1), op.i32_add, ...lane(2), op.i32_add, ...lane(3), op.i32_add],
  // and 32,768 for each word of the vectors
  ...[...get(LENGTH), ...small(-16), op.i32_and, ...small(14), op.i32_shl, op.i32_add],
  ...set(TOTAL),
  // rest := length & 15, in `length`
  ...[...get(LENGTH), ...small(15), op.i32_and, ...set(LENGTH)],
  ...[op.block, type.none, op.loop, type.none],
  ...[...get(LENGTH), ...small(2), op.i32_lt_u, op.br_if, 1],
  ...[...get(TOTAL), ...get(AT), op.i32_load16_u, ...anywhere, op.i32_add, ...set(TOTAL)],
  ...[...advance(AT, 2), ...advance(LENGTH, -2), op.br, 0, op.end, op.end],
  ...[...get(LENGTH), op.if, type.none],
  ...[...get(TOTAL), ...get(AT), op.i32_load8_u, ...anywhere, op.i32_add, ...set(TOTAL)],
  op.end,
  ...fold,
  ...fold,
  ...[...get(TOTAL), ...octet, op.i32_and, ...small(8), op.i32_shl],
  ...[...get(TOTAL), ...small(8), op.i32_shr_u, op.i32_or],
  op.end,
];

/** Unsigned LEB128. */
function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)];
}

/** A section or a function: its length, and what it has. */
function sized(bytes: readonly number[]): number[] {
  return [...leb(bytes.length), ...bytes];
}

function name(text: string): number[] {
  return sized([...new TextEncoder().encode(text)]);
}

/** The module: imports `env.memory`, exports `sum`. */
function moduleBytes(): Uint8Array<ArrayBuffer> {
  const locals = [2, 2, type.i32, 4, type.v128]; // two groups: END and TOTAL, LANES to ONES
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // "\0asm", version 1
    ...[1, ...sized([1, type.func, 2, type.i32, type.i32, 1, type.i32])],
    ...[2, ...sized([1, ...name("env"), ...name("memory"), 0x02, 0x00, 1])],
    ...[3, ...sized([1, 0])],
    ...[7, ...sized([1, ...name("sum"), 0x00, 0])],
    ...[10, ...sized([1, ...sized([...locals, ...body])])],
  ]);
}

/**
 * The function `sum` over `memory`, see `sumBytes`; `undefined` where the machine has no vector
 * instructions that WebAssembly can use.
 */
export function instantiateSum(
  memory: WebAssembly.Memory,
): ((offset: number, length: number) => number) | undefined {
  const bytes = moduleBytes();
  if (!WebAssembly.validate(bytes)) return undefined;
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
  return instance.exports["sum"] as (offset: number, length: number) => number;
}
