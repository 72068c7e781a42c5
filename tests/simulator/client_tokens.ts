import { ApiError } from "./api_error.ts";

interface Remembered {
  readonly request: string;
  readonly answer: Readonly<Record<string, unknown>>;
  readonly acceptedAtMs: number;
}

/** The service's memory of client tokens: the same call twice has one effect. */
export class ClientTokens {
  readonly #remembered = new Map<string, Remembered>();

  /**
   * The first answer to `token` of `accountId`, or `undefined` for a token not seen before.
   *
   * @param request The parameters that must be the same.
   * @throws {ApiError} `IdempotentParameterMismatch` or `LastTokenProcessing`
   */
  recall(
    key: { accountId: string; token: string },
    request: string,
    options: { nowMs: number; processingMs: number },
  ): Readonly<Record<string, unknown>> | undefined {
    if (key.token.length > 64) {
      throw new ApiError(400, "InvalidParameter", "The specified ClientToken is not valid.");
    }
    const found = this.#remembered.get(`${key.accountId}/${key.token}`);
    if (!found) return undefined;
    if (found.request !== request) {
      throw new ApiError(
        400,
        "IdempotentParameterMismatch",
        "The request uses the same client token as a previous, but non-identical request.",
      );
    }
    if (options.nowMs - found.acceptedAtMs < options.processingMs) {
      throw new ApiError(
        400,
        "LastTokenProcessing",
        "The last token request is processing, please try again later.",
      );
    }
    return found.answer;
  }

  remember(
    key: { accountId: string; token: string },
    request: string,
    answer: Readonly<Record<string, unknown>>,
    nowMs: number,
  ): void {
    this.#remembered.set(`${key.accountId}/${key.token}`, { request, answer, acceptedAtMs: nowMs });
  }
}
