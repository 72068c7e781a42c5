/** The Table of kernel parameters. @module */
import { SystemCallError } from "../../ffi/libc/errors.ts";
import { Libc } from "../../ffi/libc/open.ts";
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import type { SysctlSpec } from "../state/mod.ts";

export interface SysctlTableOptions {
  /** The parameters to read: those of the desired state. */
  readonly wanted: () => Iterable<SysctlSpec>;
  /** Called once per parameter that is not writable here and therefore left alone. */
  readonly onReadOnly: (name: string, reason: string) => void;
  /** @default {"/proc/sys"} */
  readonly root?: string;
}

/** Error codes of a parameter that is not writable here. */
const READ_ONLY: ReadonlySet<string> = new Set(["EROFS", "EACCES", "EPERM"]);

const sysctlKind: Kind<SysctlSpec> = {
  id: "sysctl",
  name: "kernel parameter",
  key: ({ name }) => name,
  equal: (desired, actual) =>
    desired.value === actual.value || (desired.accepts ?? []).includes(actual.value),
  owns: () => true,
  format: ({ name, value }) => `${name}=${value}`,
};

/**
 * Kernel parameters, written through libc, since Deno's permissions do not cover /proc. One that
 * this kernel lacks is skipped, one that is not writable (containers mount /proc/sys read-only) is
 * reported once. Those of own links go with the link; no former value is restored.
 */
export function createSysctlTable(options: SysctlTableOptions): Table<SysctlSpec> {
  return new SysctlTable(options);
}

class SysctlTable implements Table<SysctlSpec> {
  readonly kind: Kind<SysctlSpec>;
  readonly #options: SysctlTableOptions;
  /** Absent or not writable: these count as right. */
  readonly #readOnly = new Set<string>();
  readonly #absent = new Set<string>();

  constructor(options: SysctlTableOptions) {
    this.#options = options;
    this.kind = {
      ...sysctlKind,
      equal: (desired, actual) =>
        sysctlKind.equal(desired, actual) || this.#readOnly.has(desired.name) ||
        this.#absent.has(desired.name),
    };
  }

  #path(name: string): string {
    return `${this.#options.root ?? "/proc/sys"}/${name}`;
  }

  list({ signal }: { signal: AbortSignal }): Promise<readonly SysctlSpec[]> {
    signal.throwIfAborted();
    this.#absent.clear();
    const found: SysctlSpec[] = [];
    const wanted = [...this.#options.wanted()];
    if (wanted.length === 0) return Promise.resolve(found);
    using libc = Libc.open();
    const read = (name: string) => libc.readKernelFile(this.#path(name)).trim();
    for (const { name, raisedBy } of wanted) {
      try {
        const value = read(name);
        const other = raisedBy === undefined ? value : read(raisedBy);
        found.push({ name, value: Number(other) > Number(value) ? other : value });
      } catch (error) {
        if (!(error instanceof SystemCallError) || error.code !== "ENOENT") {
          throw new Error(`Cannot read ${this.#path(name)}`, { cause: error });
        }
        this.#absent.add(name);
        found.push({ name, value: "" });
      }
    }
    return Promise.resolve(found);
  }

  apply(
    changes: readonly Change<SysctlSpec>[],
    { signal }: { signal: AbortSignal },
  ): Promise<readonly FailedChange<SysctlSpec>[]> {
    signal.throwIfAborted();
    using libc = Libc.open();
    const failed: FailedChange<SysctlSpec>[] = [];
    for (const change of changes) {
      if (change.op === "remove") continue;
      const { name, value } = change.desired;
      try {
        libc.writeKernelFile(this.#path(name), value);
      } catch (cause) {
        if (!(cause instanceof SystemCallError)) throw cause;
        if (cause.code === "ENOENT") continue;
        if (READ_ONLY.has(cause.code)) {
          this.#readOnly.add(name);
          this.#options.onReadOnly(name, cause.message);
          continue;
        }
        failed.push({ change, error: new Error(`Cannot write ${this.#path(name)}`, { cause }) });
      }
    }
    return Promise.resolve(failed);
  }
}
