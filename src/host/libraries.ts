/**
 * What libraries do outside of any call of ours: errors that they throw from a timer or a socket's
 * event, and what they write to the console.
 *
 * @module
 */
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { ProblemLog } from "../status/problems.ts";

/** Writers of the console that libraries use. */
const WORDS = ["log", "info", "debug", "warn", "error", "trace", "dir", "table"] as const;

/**
 * Contains what libraries do outside of our calls, until disposed. A stray error does not end the
 * daemon: what matters to us also fails in our own loops, which do. Console output goes to the log,
 * since the console blocks on stderr.
 */
export function hearLibraries(log: Logger): Disposable {
  using stack = new DisposableStack();
  const problems = new ProblemLog(log, {
    one: ({ message }) => `An error outside of any operation was ignored: ${message}`,
    quietMs: 600_000,
  });
  const onError = (event: ErrorEvent | PromiseRejectionEvent) => {
    event.preventDefault();
    const error = event instanceof ErrorEvent ? event.error : event.reason;
    const stack = error instanceof Error ? error.stack : undefined;
    // Such errors are told apart by the line that threw them.
    const object = stack?.split("\n").find((line) => /^ +at /.test(line))?.trim() ?? "unknown";
    const finding = { code: "stray-error", object, message: describeError(error) } as const;
    problems.set([finding]);
    problems.set([]); // an event, not a state
    log.debug("A stray error came from here", { error: finding.message, stack });
  };
  for (const type of ["error", "unhandledrejection"] as const) {
    globalThis.addEventListener(type, onError);
    stack.defer(() => globalThis.removeEventListener(type, onError));
  }
  const { console } = globalThis;
  for (const word of WORDS) {
    const before = console[word];
    console[word] = (...said: unknown[]) =>
      log.debug(`A library says: ${said.map((each) => describeError(each)).join(" ")}`);
    stack.defer(() => console[word] = before);
  }
  return stack.move();
}
