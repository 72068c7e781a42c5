/**
 * Calls `onBroken` whenever an HTTP answer ends before its announced length, until disposed.
 *
 * Deno 2.7's `node:http` neither ends nor fails such an answer: the failure comes up as an
 * unhandled rejection, which no caller can catch and which ends the process. While at least one
 * such listener is there, it does not. (2.9 tells the answer's reader, and this has nothing to do.)
 */
export function onBrokenBody(onBroken: () => void): Disposable {
  const listener = (event: PromiseRejectionEvent) => {
    const { reason } = event;
    if (!(reason instanceof TypeError) || !/reading a body from connection/.test(reason.message)) {
      return;
    }
    event.preventDefault();
    onBroken();
  };
  globalThis.addEventListener("unhandledrejection", listener);
  return {
    [Symbol.dispose]: () => globalThis.removeEventListener("unhandledrejection", listener),
  };
}
