/** Judges whether this host reaches its peers. @module */
import type { SkippedPeer } from "../state/mod.ts";
import type { Finding } from "./model.ts";
import type { Condition } from "./readiness.ts";

/** Skipped peers as problems. */
export function leftOutFindings(skipped: readonly SkippedPeer[]): Finding[] {
  return skipped.map(({ key, code, reason }) => ({ code, object: key, message: reason }));
}

/**
 * Sets `condition` by the peers that a plan left out, of `peers` in a network of `families`
 * families. A host that reaches no other is not ready. A peer reached in one family of two counts as
 * reached, and is only mentioned.
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
