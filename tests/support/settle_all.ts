/**
 * Like `Promise.all()`, but on a failure it first waits for the others to end, so that none of them
 * goes on after what they use has been disposed of.
 */
export async function settleAll<const Values extends readonly unknown[]>(
  promises: Values,
): Promise<{ -readonly [Index in keyof Values]: Awaited<Values[Index]> }> {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}
