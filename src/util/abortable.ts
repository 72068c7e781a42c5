/**
 * The outcome of `promise`, unless `signal` aborts first: then it rejects with `signal.reason`, and
 * the outcome of `promise` is ignored.
 */
export async function abortable<T>(
  promise: Promise<T>,
  options: { signal: AbortSignal },
): Promise<T> {
  const { signal } = options;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
