/**
 * The two kinds of failure the daemon tells apart. Whatever time can mend is an ordinary `Error`
 * and is retried by the loop that met it; whatever needs a person is an {@linkcode OperatorError}
 * and, during start-up, ends the process with exit code 1.
 *
 * @module
 */

/** A condition that only a person can mend: bad config, denied access, an overlapping network. */
export class OperatorError extends Error {
  override name = "OperatorError";
}

/** Input that was refused as a whole; `faults` lists every reason, one sentence each. */
export class ConfigError extends OperatorError {
  override name = "ConfigError";
  readonly faults: readonly string[];

  constructor(subject: string, faults: readonly string[], options?: ErrorOptions) {
    super(`Cannot use ${subject}: ${faults.join("; ")}`, options);
    this.faults = faults;
  }
}

/** The command line or an environment variable is wrong; the process exits 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/**
 * An error and its causes as one line: `Cannot reach etcd: connection refused`. A cause whose text
 * the message already contains is not repeated. Never includes a stack.
 */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  for (let current: unknown = error, depth = 0; current !== undefined && depth < 6; depth++) {
    const text = current instanceof Error
      ? (current.message || current.name)
      : typeof current === "object" && current !== null && "message" in current
      ? String(current.message)
      : String(current);
    const line = text.replaceAll(/\s+/g, " ").trim();
    if (line !== "" && !parts.some((part) => part.includes(line))) parts.push(line);
    if (current instanceof AggregateError && current.errors.length > 0) {
      const inner = current.errors.slice(0, 3).map((each) => describeError(each));
      const more = current.errors.length > 3 ? ` (and ${current.errors.length - 3} more)` : "";
      parts.push(inner.join("; ") + more);
    }
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(": ");
}
