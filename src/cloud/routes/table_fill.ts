import type { ClusterState } from "./cluster_state.ts";
import { DEFAULT_ROUTE_QUOTA, type FillLevel, fillLevel } from "./table_quota.ts";
import type { Logger } from "../../log.ts";

/** Tells of each table once when it gets nearly full, when it is full, and when it is neither. */
export class TableFill {
  readonly #log: Logger;
  readonly #overflow: "none" | "vxlan";
  readonly #levels = new Map<string, FillLevel>();

  constructor(log: Logger, options: { readonly overflow: "none" | "vxlan" }) {
    this.#log = log;
    this.#overflow = options.overflow;
  }

  /** To be called with each published state. */
  tell({ summary, hosts }: ClusterState): void {
    const left =
      [...hosts.values()].filter(({ state }) => state === "overflow" || state === "unrouted")
        .length;
    for (const { id, used, limit } of summary.tables) {
      if (used === undefined) continue;
      const level = fillLevel(used, limit);
      if (level === (this.#levels.get(id) ?? "roomy")) continue;
      this.#levels.set(id, level);
      const fields = { used, limit: limit ?? DEFAULT_ROUTE_QUOTA };
      const advice = "raise the quota vpc_quota_route_entrys_num" +
        (this.#overflow === "vxlan" ? "" : ' or set Backend.Overflow to "vxlan"');
      if (level === "roomy") this.#log.info(`Route table ${id} has room again`, fields);
      else if (level === "nearly full") {
        this.#log.warn(`Route table ${id} is nearly full; ${advice}`, fields);
      } else {
        const fate = this.#overflow === "vxlan" ? "are reached by VXLAN" : "have no route";
        this.#log.warn(`Route table ${id} is full: hosts without an entry ${fate}; ${advice}`, {
          ...fields,
          hosts: left,
        });
      }
    }
  }
}
