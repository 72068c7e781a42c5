/**
 * What libraries do outside of any call of ours: errors that they throw from a timer or a socket's
 * event, and what they write to the console.
 *
 * @module
 */
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { RecentTexts } from "./recent_texts.ts";

/** Writers of the console that libraries use. */
const WORDS = ["log", "info", "debug", "warn", "error", "trace", "dir", "table"] as const;

/**
 * Keeps what libraries do by themselves from doing harm until disposed. A stray error does not end
 * the daemon: what matters to us fails in our own loops as well, which end the process. Words go to
 * the log, as the console waits for whoever reads stderr.
 */
export function hearLibraries(log: Logger): Disposable {
  using stack = new DisposableStack();
  const recent = new RecentTexts();
  const onError = (event: ErrorEvent | PromiseRejectionEvent) => {
    event.preventDefault();
    const error = event instanceof ErrorEvent ? event.error : event.reason;
    const reason = describeError(error);
    const level = recent.isNews(reason) ? "warn" : "debug";
    log[level](`An error outside of any operation was passed over: ${reason}`);
    if (error instanceof Error) log.debug("It came from here", { stack: error.stack });
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
