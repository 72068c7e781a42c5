/** Entries per table where nobody raised the quota; the service tells no number by itself. */
export const DEFAULT_ROUTE_QUOTA = 200;

/** From this share on, a table is nearly full. */
const NEARLY_FULL = 0.8;

/** How full a table is. */
export type FillLevel = "roomy" | "nearly full" | "full";

/**
 * How full a table of `used` custom entries is. Without a known limit it cannot be full, as its
 * quota may be higher; past the default one it has been raised, nobody knows how far.
 */
export function fillLevel(used: number, limit: number | undefined): FillLevel {
  if (limit !== undefined && used >= limit) return "full";
  const bound = limit ?? DEFAULT_ROUTE_QUOTA;
  return used >= bound * NEARLY_FULL && used <= bound ? "nearly full" : "roomy";
}
