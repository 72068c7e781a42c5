/** Keeps secrets on the command line out of `ps`. @module */
import { Libc } from "../../ffi/libc/open.ts";

/**
 * Overwrites the values of the flags `names`, and users and passwords in URLs, in this process's
 * own argument memory, which is what `ps` and /proc/<pid>/cmdline show. Both `--name=value` and
 * `--name value` are found. `Deno.args` is not changed.
 *
 * Returns why it failed, or `undefined`. It is a mitigation only: before it runs, and in the
 * command line of a wrapper that started this process, the values can be seen.
 */
export function hideArguments(names: readonly string[]): string | undefined {
  try {
    const { start, length } = argumentMemory();
    const pointer = Deno.UnsafePointer.create(start);
    if (pointer === null) return "Cannot hide secret arguments: their address is unknown";
    const memory = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, length));
    for (const [from, to] of secretRanges(memory, names)) memory.fill(MASK, from, to);
    return undefined;
  } catch (error) {
    return `Cannot hide secret arguments: ${error instanceof Error ? error.message : error}`;
  }
}

const MASK = "*".charCodeAt(0);

/** Fields 48 and 49 of /proc/self/stat, arg_start and arg_end (proc(5)). */
function argumentMemory(): { start: bigint; length: number } {
  using libc = Libc.open();
  const stat = libc.readKernelFile("/proc/self/stat");
  // Field 2, the program's name in parentheses, may itself contain spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [start, end] = [BigInt(fields[48 - 3] ?? 0), BigInt(fields[49 - 3] ?? 0)];
  const length = Number(end - start);
  const MAX_ARGUMENT_BYTES = 8 << 20;
  if (start <= 0n || length <= 0 || length > MAX_ARGUMENT_BYTES) {
    throw new Error("/proc/self/stat does not tell where they are");
  }
  return { start, length };
}

/** Where secrets are in NUL-terminated arguments: [from, to). */
function* secretRanges(
  memory: Uint8Array,
  names: readonly string[],
): Generator<readonly [number, number]> {
  let wholeNext = false;
  for (let from = 0; from < memory.length;) {
    const nul = memory.indexOf(0, from);
    const to = nul === -1 ? memory.length : nul;
    if (wholeNext) {
      yield [from, to];
      wholeNext = false;
    } else {
      // One character per byte, so that indexes in the text are those in memory.
      const text = String.fromCharCode(...memory.subarray(from, to));
      const match = /^--?([^=]*)(=?)/.exec(text);
      const users = /:\/\/([^]*)@/.exec(text);
      if (match && names.includes(match[1]!)) {
        if (match[2] === "=") yield [from + match[0].length, to];
        else wholeNext = true;
      } else if (users) {
        const start = from + users.index + 3;
        yield [start, start + users[1]!.length];
      }
    }
    from = to + 1;
  }
}
