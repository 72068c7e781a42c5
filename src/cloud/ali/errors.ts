import { OperatorError } from "../../errors.ts";
import { redact } from "../../secret.ts";
import { CloudApiError, type CloudApiErrorDetails } from "../cloud_api_error.ts";
import { adviseOnDenial } from "./rights.ts";

/**
 * What an error code asks for.
 *
 * - `retry`: wait and repeat the same call, for at most `budgetSeconds`.
 * - `settle`: the wanted state may be there already; read it back. `as` says what the service
 *   found: the entry `exists`, or it is `gone`.
 * - `credentials`: fetch new ones, repeat the call once.
 * - `pass`: the call was a dry run, and would have succeeded.
 * - `stop`: only a person can mend it; `advice` is what to do.
 */
export type Reaction =
  | { readonly do: "retry"; readonly cause: RetryCause; readonly budgetSeconds: number }
  | { readonly do: "settle"; readonly as: "exists" | "gone" }
  | { readonly do: "credentials"; readonly advice: string }
  | { readonly do: "pass" }
  | { readonly do: "stop"; readonly cause: StopCause; readonly advice: string };

/** Why to wait: it decides for how long and how often. */
export type RetryCause = "task" | "changing" | "throttled" | "busy" | "instance" | "cen" | "nonce";

/** Why to stop. */
export type StopCause =
  | "quota"
  | "quota-service"
  | "denied"
  | "key"
  | "clock"
  | "table"
  | "next-hop"
  | "destination"
  | "foreign"
  | "request";

/** One row of the table: a code, exact or, ending in `*`, a prefix. */
export interface ErrorRule {
  readonly code: string;
  /** The row holds only if the message matches. */
  readonly message?: RegExp;
  /** The row holds only for this HTTP status. */
  readonly status?: number;
  readonly reaction: Reaction;
}

const MINUTE = 60;

/**
 * Writes of one VPC are served one at a time. 200 hosts that boot together need about 17 minutes
 * of turns, so less patience than this would make the whole cluster fail together.
 */
const TURN_BUDGET = 20 * MINUTE;

const task: Reaction = { do: "retry", cause: "task", budgetSeconds: TURN_BUDGET };
const changing: Reaction = { do: "retry", cause: "changing", budgetSeconds: TURN_BUDGET };
const throttled: Reaction = { do: "retry", cause: "throttled", budgetSeconds: TURN_BUDGET };
const busy: Reaction = { do: "retry", cause: "busy", budgetSeconds: 10 * MINUTE };
const instance: Reaction = { do: "retry", cause: "instance", budgetSeconds: 5 * MINUTE };
const cen: Reaction = { do: "retry", cause: "cen", budgetSeconds: 5 * MINUTE };
const nonce: Reaction = { do: "retry", cause: "nonce", budgetSeconds: MINUTE };
const exists: Reaction = { do: "settle", as: "exists" };
const gone: Reaction = { do: "settle", as: "gone" };

function stop(cause: StopCause, advice: string): Reaction {
  return { do: "stop", cause, advice };
}

const quota = stop(
  "quota",
  "raise the quota vpc_quota_route_entrys_num in Quota Center, remove entries that are no longer " +
    'needed, or set Backend.Overflow to "vxlan"',
);
const quotaService = stop(
  "quota-service",
  "the quota service could not be asked; look at Quota Center",
);
/** What to do depends on the action: {@linkcode adviseOnDenial}. */
const denied = stop("denied", "");
const key = stop("key", "the AccessKey is wrong, disabled or of another site; give a valid one");
const signature = stop(
  "key",
  "the AccessKeySecret does not belong to this AccessKeyID; give the right pair",
);
const clock = stop(
  "clock",
  "this host's clock is off by more than 15 minutes; set it (chrony, systemd-timesyncd)",
);
const table = stop(
  "table",
  "check RouteTableID, VpcID and RegionID: there is no such table, router or VPC there",
);
const nextHop = stop(
  "next-hop",
  "this instance is not known in that VPC, region or account; check RegionID, VpcID and whose " +
    "AccessKey it is",
);
const destination = stop(
  "destination",
  "the network must lie outside the VPC's CIDR blocks, every vSwitch and 100.64.0.0/10, and the " +
    "account must be allowed to use the range",
);
const foreign = stop(
  "foreign",
  "the entry or table belongs to the system, a gateway or another service; choose another table " +
    "or remove the entry",
);
const request = stop(
  "request",
  "the service does not take this request; check the endpoint and that it is https",
);
const token: Reaction = {
  do: "credentials",
  advice: "the security token has expired or does not belong to the AccessKeyID",
};

function rows(codes: readonly string[], reaction: Reaction): ErrorRule[] {
  return codes.map((code) => ({ code, reaction }));
}

/**
 * Every error code the VPC, ECS and gateway documentation and their other users name, with the
 * service's own misspellings. Looked up by {@linkcode react}: exact rows first (those with a
 * message or status before those without), then the longest prefix.
 */
export const ERROR_RULES: readonly ErrorRule[] = [
  // Another task has the VPC: wait for a turn.
  ...rows(
    [
      "TaskConflict",
      "OperationConflict",
      "Operation.Conflict",
      "InvalidOperation.Conflict",
      "OperationFailed.DistibuteLock",
      "LastTokenProcessing",
    ],
    task,
  ),
  // Something the call depends on is between two states.
  ...rows(
    [
      "IncorrectRouteEntryStatus",
      "IncorrcetRouteEntryStatus",
      "IncorrectStatus.VpcRouteEntry",
      "IncorrectVpcStatus",
      "IncorrectVSwitchStatus",
      "IncorrectHaVipStatus",
      "InvalidVBRStatus",
      "IncorrectStatus.RouteTableStatus",
      "IncorrectStatus.*",
    ],
    changing,
  ),
  ...rows(["IncorrectInstanceStatus", "IncorrectStatus.Ipv6Address"], instance),
  ...rows(
    [
      "IncorrectStatus.CenRelation",
      "OperationFailed.NotifyCenCreate",
      "OperationFailed.NotifyCenDelete",
    ],
    cen,
  ),
  ...rows(
    [
      "Throttling",
      "Throttling.User",
      "Throttling.Api",
      "Throttling.*",
      "Rejected.Throttling",
    ],
    throttled,
  ),
  ...rows(
    [
      "SystemBusy",
      "UnknownError",
      "ServiceUnavailable",
      "ServiceUnavailable.*",
      "InternalError",
      "InternalError.*",
      "Internal.Error",
      "Vpc.Error",
      "VPC.ERROR",
    ],
    busy,
  ),
  ...rows(["SignatureNonceUsed"], nonce),

  // The state may be what we want.
  ...rows(
    [
      "InvalidCIDRBlock.Duplicate",
      "InvalidRouteEntry.Duplicate",
      "RouterEntryConflict.Duplicated",
      "RouteConflict.AlreadyExist",
      "Duplicated.VpcNextHop",
      "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
      "VPC_ROUTE_ENTRY_STATUS_ERROR",
    ],
    exists,
  ),
  { code: "InvalidCidrBlock", message: /already exist/i, reaction: exists },
  ...rows(
    ["InvalidRouteEntry.NotFound", "InvalidRouteEntryId.NotFound", "VPC_ROUTER_ENTRY_NOT_EXIST"],
    gone,
  ),
  { code: "InvalidRouteEntry", message: /not exist/i, reaction: gone },

  // Only a person can help.
  ...rows(["QuotaExceeded", "QuotaExceeded.*"], quota),
  ...rows(["InvalidEntryRuleQuota.NotFound", "Forbidden.CheckEntryRuleQuota"], quotaService),
  ...rows(
    [
      "InvalidRouteTableId.NotFound",
      "InvalidRouteTable.NotFound",
      "InvalidVRouter.NotFound",
      "InvalidVPC.NotFound",
      "InvalidVpcId.NotFound",
      "InvalidVpcID.NotFound",
      "InvalidVSwitchId.NotFound",
      "InvalidRegionId.NotFound",
    ],
    table,
  ),
  ...rows(
    [
      "InvalidInstanId.NotFound",
      "InvalidInstanceId.NotFound",
      "InvalidNextHopId.NotFound",
      "InvalidNextHop.NotFound",
      "InvalidNexthop.NotFound",
      "OperationFailed.InvalidNexthop",
      "IllegalParam.NextHopId",
      "OperationFailed.InstanceDismatchCurrentVpc",
      "InvalidEniId.NotFound",
    ],
    nextHop,
  ),
  { code: "InvalidParameter", status: 404, reaction: nextHop },
  ...rows(
    [
      "InvalidCidrBlock",
      "InvalidCidrBlock.Malformed",
      "IllegalParam.CidrBlock",
      "InvalidDestinationCidrBlock",
      "FORBIDDEN_USE_VPC_AS_INTERNET_GATEWAY",
    ],
    destination,
  ),
  ...rows(
    [
      "OperationDenied",
      "OperationDenied.*",
      "Forbbiden",
      "OperationDenied.DeleteManagedRouteEntry",
      "OperationDenied.RouteTableTypeNotPermitted",
      "OperationDenied.UseGatewayRouteEntryQueryInterface",
    ],
    foreign,
  ),
  ...rows(
    [
      "Forbidden.RAM",
      "NoPermission",
      "NoPermission.*",
      "Forbidden",
      "ActionUnauthorized",
      "UnauthorizedOperation",
      "AuthenticationFail.NoPermission",
    ],
    denied,
  ),
  ...rows(
    ["InvalidAccessKeyId.NotFound", "InvalidAccessKeyId.Inactive", "Forbidden.AccessKeyDisabled"],
    key,
  ),
  ...rows(["SignatureDoesNotMatch", "IncompleteSignature"], signature),
  ...rows(["InvalidTimeStamp.Expired", "InvalidTimeStamp.Format"], clock),
  ...rows(
    [
      "InvalidSecurityToken.Expired",
      "InvalidSecurityToken.Malformed",
      "InvalidSecurityToken.MismatchWithAccessKey",
      "InvalidSecurityToken.*",
      "MissingSecurityToken",
    ],
    token,
  ),
  ...rows(
    [
      "MissingParameter",
      "Missing*",
      "InvalidParameter",
      "InvalidApi.NotFound",
      "InvalidAction.NotFound",
      "InvalidProtocol.NeedSsl",
      "IdempotentParameterMismatch",
      "ParamExclusive.*",
    ],
    request,
  ),

  { code: "DryRunOperation", reaction: { do: "pass" } },
];

/** The reaction to an error answer. */
export function react(
  answer: { readonly status: number; readonly code: string; readonly message: string },
): Reaction {
  const holds = (rule: ErrorRule) =>
    (rule.status === undefined || rule.status === answer.status) &&
    (rule.message === undefined || rule.message.test(answer.message));
  const exact = ERROR_RULES.filter((rule) => rule.code === answer.code && holds(rule));
  const best = exact.find((rule) => rule.message !== undefined || rule.status !== undefined) ??
    exact[0];
  if (best !== undefined) return best.reaction;
  let prefix: ErrorRule | undefined;
  for (const rule of ERROR_RULES) {
    if (!rule.code.endsWith("*") || !answer.code.startsWith(rule.code.slice(0, -1))) continue;
    if (rule.code.length > (prefix?.code.length ?? 0)) prefix = rule;
  }
  if (prefix !== undefined) return prefix.reaction;
  // How batches spell this one is not documented.
  if (/quota.*exceed|exceed.*quota/i.test(answer.code)) return quota;
  return answer.status >= 500 || answer.status === 0 ? busy : stop(
    "request",
    "the code is unknown here; see the service's documentation of it",
  );
}

/** An error of one of Alibaba Cloud's services, with the {@linkcode Reaction} to it. */
export class AliApiError extends CloudApiError {
  override name = "AliApiError";
  /** As RAM names it: `vpc:CreateRouteEntry`. */
  readonly action: string;
  readonly reaction: Reaction;
  /** What a person can do, or an empty text. */
  readonly advice: string;

  constructor(
    context: { readonly action: string; readonly message: string; readonly reaction?: Reaction },
    details: Omit<CloudApiErrorDetails, "retriable">,
    options?: ErrorOptions,
  ) {
    const reaction = context.reaction ?? react({ ...details, message: context.message });
    const advice = reaction.do === "stop" && reaction.cause === "denied"
      ? adviseOnDenial(context.action)
      : "advice" in reaction
      ? reaction.advice
      : "";
    const where = [
      details.status === 0 ? "" : `HTTP ${details.status}`,
      details.requestId === undefined ? "" : `request ${cleanText(details.requestId, 80)}`,
    ].filter((part) => part !== "").join(", ");
    const said = cleanText(context.message, 300);
    super(
      `Cannot call ${context.action}: ${cleanText(details.code, 80)}` +
        (said === "" ? "" : ` (${said})`) + (advice === "" ? "" : `; ${advice}`) +
        (where === "" ? "" : ` [${where}]`),
      { ...details, retriable: reaction.do === "retry" || reaction.do === "settle" },
      options,
    );
    this.action = context.action;
    this.reaction = reaction;
    this.advice = advice;
  }

  /** Whether RAM refuses the action to this identity. */
  get denied(): boolean {
    return this.reaction.do === "stop" && this.reaction.cause === "denied";
  }
}

/**
 * A service's or library's text, fit for a log: one line without URL, query, key id, token or the
 * string to sign, which all come back in messages of this API.
 */
export function cleanText(text: string, maxLength = 300): string {
  const line = redact(text)
    .replaceAll(/server string to sign is\s*:.*/gis, "server string to sign is:[removed]")
    .replaceAll(/,?\s*(?:source|url)\s*:\s*\S+/gi, "")
    .replaceAll(/https?:\/\/[^\s"'<>?]*\?[^\s"'<>]*/gi, "[url removed]")
    .replaceAll(
      /\b(AccessKeyId|AccessKeySecret|SecurityToken|Signature|OIDCToken)(\\?["']?\s*[=:]\s*\\?["']?)[^\s&"'\\,;]+/gi,
      "$1$2[redacted]",
    )
    .replaceAll(/\b(?:LTAI|STS\.|TMP\.)[A-Za-z0-9._-]{6,}/g, "[redacted]")
    // deno-lint-ignore no-control-regex -- hostile text must not reach a terminal
    .replaceAll(/[\s\u0000-\u001f\u007f-\u009f]+/g, " ")
    .trim();
  return line.length > maxLength ? `${line.slice(0, maxLength)}…` : line;
}

/**
 * The error to throw before anything has been written: what only a person can mend becomes an
 * {@linkcode OperatorError}, so that start-up ends; anything else stays what it is, so that
 * start-up waits and tries again.
 */
export function asStartupError(error: unknown): unknown {
  if (
    error instanceof AliApiError &&
    (error.reaction.do === "stop" || error.reaction.do === "credentials")
  ) {
    return new OperatorError(error.message, { cause: error });
  }
  return error;
}
