/**
 * What a failed call to a cloud asks for, whichever cloud it is. A cloud's folder maps its error
 * codes to these.
 *
 * @module
 */

/**
 * - `retry`: wait and repeat the same call, for at most `budgetSeconds`;
 * - `exists`, `gone`: the wanted state may be there already; read it back;
 * - `quota`: the table takes no more entries;
 * - `denied`: this identity lacks the right to the action;
 * - `credentials`: fetch new ones and repeat the call once;
 * - `pass`: the call was a dry run, and would have succeeded;
 * - `fatal`: needs an operator.
 *
 * `advice` tells an operator what to do, without full stop.
 */
export type Reaction =
  | { readonly do: "retry"; readonly cause: RetryCause; readonly budgetSeconds: number }
  | { readonly do: "exists" | "gone" | "pass" }
  | { readonly do: "quota" | "denied" | "credentials"; readonly advice: string }
  | { readonly do: "fatal"; readonly about: FatalSubject; readonly advice: string };

/**
 * Why to wait; it decides for how long and how often:
 *
 * - `turn`: another write has the network;
 * - `changing`: what the call depends on is between two states;
 * - `throttled`: the account's rate limit;
 * - `busy`: the service has trouble, or did not return anything;
 * - `instance`: the instance is between two states;
 * - `peering`: a network that this one is joined to is changing.
 */
export type RetryCause = "turn" | "changing" | "throttled" | "busy" | "instance" | "peering";

/** What is wrong; `entry` stands for a single one of the entries that a call is about. */
export type FatalSubject =
  | "quota-service"
  | "key"
  | "clock"
  | "table"
  | "next-hop"
  | "destination"
  | "foreign"
  | "request";

export interface CloudApiErrorDetails {
  /** As the cloud's policies name it. */
  readonly action: string;
  /** The service's error code, or one of ours where it gave none (`Timeout`, `NoConnection`, …). */
  readonly code: string;
  readonly reaction: Reaction;
  /** HTTP status; 0 if nothing came back. */
  readonly status: number;
  /** Whether the call may have taken effect all the same. */
  readonly outcomeUnknown?: boolean;
}

/** A cloud's API refused a call or could not be reached. The message holds no secret. */
export class CloudApiError extends Error {
  override name = "CloudApiError";
  readonly action: string;
  readonly code: string;
  readonly reaction: Reaction;
  readonly status: number;
  readonly outcomeUnknown: boolean;

  constructor(message: string, details: CloudApiErrorDetails, options?: ErrorOptions) {
    super(message, options);
    this.action = details.action;
    this.code = details.code;
    this.reaction = details.reaction;
    this.status = details.status;
    this.outcomeUnknown = details.outcomeUnknown ?? false;
  }

  /** What an operator can do, or an empty text. */
  get advice(): string {
    return "advice" in this.reaction ? this.reaction.advice : "";
  }
}

/** What `error`, or what it was caused by, asks for; `undefined` if no cloud's call failed. */
export function reactionTo(error: unknown): Reaction["do"] | undefined {
  for (let each = error; each instanceof Error; each = each.cause) {
    if (each instanceof CloudApiError) return each.reaction.do;
  }
  return undefined;
}

/** Whether an action is denied or unknown here, whatever it is asked to do. */
export function isUnavailable(error: unknown): error is CloudApiError {
  if (!(error instanceof CloudApiError)) return false;
  const { reaction } = error;
  return reaction.do === "denied" || (reaction.do === "fatal" && reaction.about === "request");
}

/** Whether the error of a call about several entries may be about a single one of them. */
export function mayConcernOne({ reaction }: CloudApiError): boolean {
  return reaction.do === "quota" ||
    (reaction.do === "fatal" && ["next-hop", "destination", "foreign"].includes(reaction.about));
}
