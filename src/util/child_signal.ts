/** A signal with a life of its own; see {@linkcode childSignal}. */
export interface ChildSignal extends Disposable {
  readonly signal: AbortSignal;
  /** Aborts this signal alone. */
  abort(reason: unknown): void;
}

/**
 * A signal that aborts with any of `parents`, and on disposal. A parent that lives for days keeps
 * nothing of a child that was disposed.
 */
export function childSignal(...parents: readonly AbortSignal[]): ChildSignal {
  const controller = new AbortController();
  const onAbort = () => controller.abort(parents.find(({ aborted }) => aborted)?.reason);
  for (const parent of parents) parent.addEventListener("abort", onAbort, { once: true });
  if (parents.some(({ aborted }) => aborted)) onAbort();
  return {
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      for (const parent of parents) parent.removeEventListener("abort", onAbort);
      controller.abort(new DOMException("The scope of the signal has ended", "AbortError"));
    },
  };
}
