/**
 * C types as Deno's FFI knows them, so that a symbol table reads like the header it mirrors. Widths
 * are those of 64-bit Linux (LP64: x86-64 and arm64).
 *
 * @module
 */
export const int = "i32";
export const unsigned_int = "u32";
export const unsigned_long = "u64";
export const uint8_t = "u8";
export const uint32_t = "u32";
export const socklen_t = "u32";
export const nfds_t = "u64"; // unsigned long
export const size_t = "usize";
export const ssize_t = "isize";
export const void_ = "void";
/** A pointer that C gave us and that we hand back. */
export const pointer = "pointer";
/** Memory of ours that C reads or writes during the call, or `null`. */
export const buffer = "buffer";
