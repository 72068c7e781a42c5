/** How full route tables are, and what to do about it. @module */
import type { Logger } from "../../log.ts";
import type { ClusterState } from "./cluster_state.ts";
import type { RouteApi } from "./provider.ts";

/** How hosts are reached whose entry does not fit into the route tables. */
export type Overflow = "none" | "vxlan";

/** From this share on, a table is nearly full. */
const NEARLY_FULL = 0.8;

/** How full a table is. */
export type FillLevel = "roomy" | "nearly full" | "full";

/**
 * How full a table of `used` entries is. Without a known limit it cannot be full, as its quota may
 * be higher; past the default one it has been raised, nobody knows how far.
 */
export function fillLevel(
  used: number,
  limit: number | undefined,
  defaultQuota: number,
): FillLevel {
  if (limit !== undefined && used >= limit) return "full";
  const bound = limit ?? defaultQuota;
  return used >= bound * NEARLY_FULL && used <= bound ? "nearly full" : "roomy";
}

/** What an operator does about a table that takes no more. */
export function quotaAdvice({ words }: Pick<RouteApi, "words">, overflow: Overflow): string {
  return words.raiseQuota + (overflow === "vxlan" ? "" : ' or set Backend.Overflow to "vxlan"');
}

/**
 * Logs of each table once when it gets nearly full, when it is full, and when it is neither. The
 * returned function is to be called with each published state.
 */
export function logTableFill(
  log: Logger,
  api: Pick<RouteApi, "words" | "defaultQuota">,
  overflow: Overflow,
): (state: ClusterState) => void {
  const levels = new Map<string, FillLevel>();
  const advice = quotaAdvice(api, overflow);
  return ({ summary, hosts }) => {
    const { defaultQuota } = api;
    const left =
      [...hosts.values()].filter(({ state }) => state === "overflow" || state === "unrouted")
        .length;
    for (const { id, used, limit } of summary.tables) {
      if (used === undefined) continue;
      const level = fillLevel(used, limit, defaultQuota);
      if (level === (levels.get(id) ?? "roomy")) continue;
      levels.set(id, level);
      const fields = { used, limit: limit ?? defaultQuota };
      if (level === "roomy") log.info(`Route table ${id} has room again`, fields);
      else if (level === "nearly full") {
        log.warn(`Route table ${id} is nearly full; ${advice}`, fields);
      } else {
        const fate = overflow === "vxlan" ? "are reached by VXLAN" : "have no route";
        log.warn(`Route table ${id} is full: hosts without an entry ${fate}; ${advice}`, {
          ...fields,
          hosts: left,
        });
      }
    }
  };
}
