/** A signal with a life of its own; see {@linkcode childSignal}. */
export interface ChildSignal extends Disposable {
  readonly signal: AbortSignal;
  /** Aborts this signal alone. */
  abort(reason: unknown): void;
}

/**
 * A signal that aborts with `parent`, and on disposal. A parent that lives for days keeps nothing
 * of a child that was disposed.
 */
export function childSignal(parent: AbortSignal): ChildSignal {
  const controller = new AbortController();
  const onAbort = () => controller.abort(parent.reason);
  if (parent.aborted) onAbort();
  else parent.addEventListener("abort", onAbort, { once: true });
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      parent.removeEventListener("abort", onAbort);
      controller.abort(new DOMException("The scope of the signal has ended", "AbortError"));
    },
  };
}
