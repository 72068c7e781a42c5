/**
 * The two kinds of failure the daemon tells apart. What may pass by itself is an ordinary `Error`
 * and is retried by the loop that met it; what needs an operator is an {@linkcode OperatorError}
 * and, during start-up, ends the process with exit code 1.
 *
 * @module
 */

/** A condition that needs an operator: bad config, denied access, an overlapping network. */
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
 * An error and its causes as one line: `Cannot reach etcd: connection refused`. What was said
 * before is not repeated: neither a cause whose text is there already, nor the beginning of one that
 * says again what could not be done. Never includes a stack.
 *
 * @param context What could not be done, put first: `Cannot add route …`.
 */
export function describeError(error: unknown, context?: string): string {
  const parts: string[] = context === undefined ? [] : [context];
  for (let current: unknown = error, depth = 0; current !== undefined && depth < 6; depth++) {
    const text = current instanceof Error
      ? (current.message || current.name)
      : typeof current === "object" && current !== null && "message" in current
      ? String(current.message)
      : String(current);
    const line = withoutRepetition(text.replaceAll(/\s+/g, " ").trim(), parts);
    if (line !== "" && !parts.some((part) => part.includes(line))) parts.push(line);
    if (current instanceof AggregateError && current.errors.length > 0) {
      const reasons = [...new Set(current.errors.map((each) => describeError(each)))];
      const more = reasons.length > 3 ? ` (and ${reasons.length - 3} more)` : "";
      parts.push(reasons.slice(0, 3).join("; ") + more);
    }
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(": ");
}

/**
 * The codes of an error and its causes, such as `unavailable/ECONNREFUSED`: what tells one cause of
 * a failure from another, whatever the words.
 */
export function causeCode(error: unknown): string | undefined {
  const codes: string[] = [];
  let current = error;
  for (let depth = 0; current instanceof Error && depth < 6; depth++) {
    const { code, reason, name, cause } = current as Error & { code?: unknown; reason?: unknown };
    const own = [code, reason, name].find((each) => typeof each === "string");
    if (own !== "Error") codes.push(own as string);
    current = cause;
  }
  return codes.length === 0 ? undefined : codes.join("/");
}

/** `line` without what it says again of `parts`: the operation that it begins with, and the path. */
function withoutRepetition(line: string, parts: readonly string[]): string {
  let rest = line;
  for (let end; (end = rest.indexOf(": ")) !== -1;) {
    const head = rest.slice(0, end);
    if (!parts.some((part) => part.startsWith(head) || part.includes(`: ${head}`))) break;
    rest = rest.slice(end + 2);
  }
  // Deno names the call and its path: `No such file or directory (os error 2): open '/etc/x'`.
  const call = /: \w+ '([^']+)'$/.exec(rest);
  return call !== null && parts.some((part) => part.includes(call[1]!))
    ? rest.slice(0, call.index)
    : rest;
}
