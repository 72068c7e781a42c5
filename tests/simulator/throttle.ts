import { ApiError } from "./api_error.ts";
import type { Behaviour } from "./config.ts";

/** Counts calls per region, account and action in fixed windows, whoever makes them. */
export class Throttle {
  readonly #windows = new Map<string, { startedAtMs: number; calls: number }>();
  #refusals = 0;

  /**
   * Counts one call.
   *
   * @throws {ApiError} `Throttling.User` and `Throttling.Api` in turn, once the limit is used up.
   */
  count(
    call: { regionId: string; accountId: string; action: string },
    options: { throttle: Behaviour["throttle"]; nowMs: number },
  ): void {
    const { throttle, nowMs } = options;
    const limit = throttle.limits[call.action] ?? throttle.limit;
    if (limit === undefined) return;
    const key = `${call.regionId}/${call.accountId}/${call.action}`;
    const startedAtMs = nowMs - nowMs % throttle.windowMs;
    let window = this.#windows.get(key);
    if (!window || window.startedAtMs !== startedAtMs) {
      window = { startedAtMs, calls: 0 };
      this.#windows.set(key, window);
    }
    if (window.calls++ < limit) return;
    const code = this.#refusals++ % 2 === 0 ? "Throttling.User" : "Throttling.Api";
    throw new ApiError(400, code, "Request was denied due to user flow control.");
  }
}
