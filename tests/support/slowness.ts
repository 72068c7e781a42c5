/** Says how many times slower than usual this machine is, as an emulated one sets it. */
export const SLOWNESS_VARIABLE = "FLANNELD_TEST_SLOWNESS";

/** How many times longer than usual everything may take; 1 unless the environment says so. */
export function slowness(): number {
  const text = Deno.env.get(SLOWNESS_VARIABLE);
  if (text === undefined || text === "") return 1;
  const factor = Number(text);
  if (!(factor >= 1 && factor <= 1000)) {
    throw new RangeError(`Cannot use ${SLOWNESS_VARIABLE}=${text}: it is not in 1..1000`);
  }
  return factor;
}

/** A time-out for this machine: one that fits a usual machine, times its {@linkcode slowness}. */
export function patient(milliseconds: number): number {
  return milliseconds * slowness();
}
