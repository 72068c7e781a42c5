import type { SkippedPeer } from "../state/mod.ts";

/** What peers that are left out mean for this host. */
export interface LeftOut {
  /** No peer is reached: the host cannot count as ready. */
  readonly fault?: string;
  /** Some are, some are not. */
  readonly remark?: string;
}

/**
 * What a plan's skipped peers come to, of `peers` in a network of `families` families. A peer that
 * is reached in one family of two is not left out; if none is reached in the other, that is said.
 */
export function judgeLeftOut(
  skipped: readonly SkippedPeer[],
  { peers, families }: { readonly peers: number; readonly families: number },
): LeftOut {
  const reasons = new Map<string, string[]>();
  for (const { key, reason } of skipped) {
    const known = reasons.get(key);
    if (known) known.push(reason);
    else reasons.set(key, [reason]);
  }
  const whole = [...reasons].filter(([, list]) => list.length >= families);
  const [first] = whole.length > 0 ? whole : reasons;
  if (first === undefined) return {};
  const [key, [reason]] = first;
  const example = `${key}: ${reason}`;
  if (whole.length >= peers) {
    return {
      fault: peers === 1
        ? `the only other host is left out: ${example}`
        : `all ${peers} other hosts are left out, such as ${example}`,
    };
  }
  const count = whole.length > 0 ? whole.length : reasons.size;
  const how = whole.length > 0 ? "left out" : "reached in one family only";
  return {
    remark: `${count} of ${peers} peers ${count === 1 ? "is" : "are"} ${how}, such as ${example}`,
  };
}
