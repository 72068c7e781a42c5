/**
 * Calls `onBroken` whenever an HTTP reply ends before its announced length, until disposed. Deno
 * 2.7's `node:http` neither ends nor fails such a reply: the failure is an unhandled rejection,
 * which ends the process unless such a listener is there. (2.9 tells the reader.)
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
