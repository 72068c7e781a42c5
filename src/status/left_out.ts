/**
 * What peers that are left out mean for this host.
 *
 * @module
 */
import type { SkippedPeer } from "../state/mod.ts";
import type { Finding } from "./model.ts";
import type { Condition } from "./readiness.ts";

/** Skipped peers as problems. */
export function leftOutFindings(skipped: readonly SkippedPeer[]): Finding[] {
  return skipped.map(({ key, code, reason }) => ({ code, object: key, message: reason }));
}

/**
 * Judges `condition` by a plan's skipped peers, of `peers` in a network of `families` families. A
 * host that reaches no other cannot count as ready. A peer that is reached in one family of two is
 * not left out; if none is reached in the other, that is said.
 */
export function judgeLeftOut(
  condition: Pick<Condition, "met" | "unmet">,
  skipped: readonly SkippedPeer[],
  { peers, families }: { readonly peers: number; readonly families: number },
): void {
  if (skipped.length === 0) return condition.met();
  const byPeer = Map.groupBy(skipped, ({ key }) => key);
  const whole = [...byPeer.values()].filter((faults) => faults.length >= families);
  const { key, reason } = whole[0]?.[0] ?? skipped[0]!;
  const example = `${key}: ${reason}`;
  const object = "peers";
  if (whole.length >= peers) {
    return condition.unmet({
      code: "no-peer-reached",
      object,
      message: peers === 1
        ? `the only other host is left out: ${example}`
        : `all ${peers} other hosts are left out, such as ${example}`,
    });
  }
  const count = whole.length || byPeer.size;
  const how = whole.length > 0 ? "left out" : "reached in one family only";
  condition.met([{
    code: "peers-left-out",
    object,
    message: `${count} of ${peers} peers ${count === 1 ? "is" : "are"} ${how}, such as ${example}`,
  }]);
}
