/** What a {@linkcode CloudApiError} carries beside its message. */
export interface CloudApiErrorDetails {
  /** HTTP status; 0 if no answer came. */
  readonly status: number;
  /** The service's error code, or one of ours where it gave none (`Timeout`, `NoConnection`, …). */
  readonly code: string;
  /** Whether the same call may succeed later without anybody doing anything. */
  readonly retriable: boolean;
  readonly requestId?: string;
  /** Whether the call may have taken effect all the same. */
  readonly outcomeUnknown?: boolean;
}

/** A cloud's API refused a call or could not be reached. The message holds no secret. */
export class CloudApiError extends Error {
  override name = "CloudApiError";
  readonly status: number;
  readonly code: string;
  readonly retriable: boolean;
  readonly requestId: string | undefined;
  readonly outcomeUnknown: boolean;

  constructor(message: string, details: CloudApiErrorDetails, options?: ErrorOptions) {
    super(message, options);
    this.status = details.status;
    this.code = details.code;
    this.retriable = details.retriable;
    this.requestId = details.requestId;
    this.outcomeUnknown = details.outcomeUnknown ?? false;
  }
}
