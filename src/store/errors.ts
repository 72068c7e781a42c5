/** How calls of a store fail, and what every call takes. @module */

/** How a store failed. */
export class StoreError extends Error {
  override name = "StoreError";
  /**
   * `unavailable`: may pass by itself (no connection, no leader, time-out); `denied`: credentials
   * or rights are wrong; `invalid`: the store refused the request itself.
   */
  readonly reason: "unavailable" | "denied" | "invalid";

  constructor(reason: StoreError["reason"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/** Whether `error` may pass by itself; false for what the store denied or refused as invalid. */
export function isTransient(error: unknown): boolean {
  return !(error instanceof StoreError) || error.reason === "unavailable";
}

/** Options of every call. A call ends with `signal.reason` on abort and has its own deadline. */
export interface CallOptions {
  readonly signal: AbortSignal;
}
