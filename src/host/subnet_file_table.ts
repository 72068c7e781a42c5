/** subnet.env, or another file for container runtimes, as a Table with one object. @module */
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import { openTrusted, writeFileAtomically } from "./atomic_file.ts";

/** A file and its whole content. */
export interface SubnetFileSpec {
  readonly path: string;
  /** See `renderSubnetEnv()`. */
  readonly text: string;
}

/** A longer file is not subnet.env: it is not read to the end, and is replaced. */
const MAX_BYTES = 65_536;

const subnetFileKind: Kind<SubnetFileSpec> = {
  id: "subnet-file",
  name: "subnet file",
  key: ({ path }) => path,
  equal: (desired, actual) => desired.text === actual.text,
  owns: () => true,
  format({ path, text }) {
    // Only printable characters: the text may be anything.
    const line = text.trim().replaceAll(/[^ -~]+/g, " ");
    return `${path}: ${line.length > 300 ? `${line.slice(0, 300)}…` : line}`;
  },
};

/**
 * The subnet file as a Table with one object. It is replaced atomically and never removed, since
 * pods that start while the daemon is down need it.
 */
export class SubnetFileTable implements Table<SubnetFileSpec> {
  readonly kind: Kind<SubnetFileSpec>;
  readonly #path: string;
  readonly #flag: string;
  #lastText: string | undefined;

  /** @param options For another file than subnet.env: what it is, and the flag that names it. */
  constructor(
    path: string,
    { kind = subnetFileKind, flag = "--subnet-file" }: {
      readonly kind?: Kind<SubnetFileSpec>;
      readonly flag?: string;
    } = {},
  ) {
    this.#path = path;
    this.kind = kind;
    this.#flag = flag;
  }

  /** Whether the file had this text when it was last read or written. */
  holds(text: string): boolean {
    return this.#lastText === text;
  }

  async list({ signal }: { signal: AbortSignal }): Promise<SubnetFileSpec[]> {
    signal.throwIfAborted();
    const text = await readSubnetFile(this.#path, this.#flag);
    this.#lastText = text;
    return text === undefined ? [] : [{ path: this.#path, text }];
  }

  async apply(
    changes: readonly Change<SubnetFileSpec>[],
    { signal }: { signal: AbortSignal },
  ): Promise<FailedChange<SubnetFileSpec>[]> {
    const failed: FailedChange<SubnetFileSpec>[] = [];
    for (const change of changes) {
      signal.throwIfAborted();
      if (change.op === "remove") continue;
      try {
        await writeFileAtomically(this.#path, change.desired.text);
        this.#lastText = change.desired.text;
      } catch (cause) {
        const error = new Error(
          `Cannot write ${this.#path}: check that its directory can be written, or choose ` +
            `another place with ${this.#flag}`,
          { cause },
        );
        failed.push({ change, error });
      }
    }
    return failed;
  }
}

/**
 * The text of the subnet file, at most 64 KiB of it; `undefined` if there is no such file.
 * A file of another user in a world-writable directory does not count.
 *
 * @throws If it exists and cannot be read.
 */
export async function readSubnetFile(
  path: string,
  flag = "--subnet-file",
): Promise<string | undefined> {
  try {
    using file = await openTrusted(path);
    if (!file) return undefined;
    const buffer = new Uint8Array(MAX_BYTES);
    let length = 0;
    while (length < MAX_BYTES) {
      const count = await file.read(buffer.subarray(length));
      if (count === null) break;
      length += count;
    }
    return new TextDecoder().decode(buffer.subarray(0, length));
  } catch (error) {
    throw new Error(
      `Cannot read ${path}: see what is in its place, or choose another one with ${flag}`,
      { cause: error },
    );
  }
}
