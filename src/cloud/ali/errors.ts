/** What each error code of the services asks for. @module */
import { OperatorError } from "../../errors.ts";
import { cleanText } from "../clean_text.ts";
import {
  CloudApiError,
  type CloudApiErrorDetails,
  type FatalSubject,
  type Reaction,
} from "../routes/cloud_error.ts";
import { adviseOnDenial } from "./rights.ts";
import { WORDS } from "./words.ts";

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

const task: Reaction = { do: "retry", cause: "turn", budgetSeconds: TURN_BUDGET };
const changing: Reaction = { do: "retry", cause: "changing", budgetSeconds: TURN_BUDGET };
const throttled: Reaction = { do: "retry", cause: "throttled", budgetSeconds: TURN_BUDGET };
const busy: Reaction = { do: "retry", cause: "busy", budgetSeconds: 10 * MINUTE };
const instance: Reaction = { do: "retry", cause: "instance", budgetSeconds: 5 * MINUTE };
const cen: Reaction = { do: "retry", cause: "peering", budgetSeconds: 5 * MINUTE };
const nonce: Reaction = { do: "retry", cause: "busy", budgetSeconds: MINUTE };
const exists: Reaction = { do: "exists" };
const gone: Reaction = { do: "gone" };

function fatal(about: FatalSubject, advice: string): Reaction {
  return { do: "fatal", about, advice };
}

const quota: Reaction = {
  do: "quota",
  advice: `${WORDS.raiseQuota} in Quota Center, remove entries that are no longer needed, ` +
    ' or set Backend.Overflow to "vxlan"',
};
const quotaService = fatal(
  "quota-service",
  "the quota service could not be asked; look at Quota Center",
);
/** What to do depends on the action: {@linkcode adviseOnDenial}. */
const denied: Reaction = { do: "denied", advice: "" };
const key = fatal("key", "the AccessKey is wrong, disabled or of another site; give a valid one");
const signature = fatal(
  "key",
  "the AccessKeySecret does not belong to this AccessKeyID; give the right pair",
);
const clock = fatal(
  "clock",
  "this host's clock is off by more than 15 minutes; set it (chrony, systemd-timesyncd)",
);
const table = fatal(
  "table",
  "check RouteTableID, VpcID and RegionID: there is no such table, router or VPC there",
);
const nextHop = fatal(
  "next-hop",
  "this instance is not known in that VPC, region or account; check RegionID, VpcID and whose " +
    "AccessKey it is",
);
const destination = fatal(
  "destination",
  "the network must lie outside the VPC's CIDR blocks, every vSwitch and 100.64.0.0/10, and the " +
    "account must be allowed to use the range",
);
const foreign = fatal(
  "foreign",
  "the entry or table belongs to the system, a gateway or another service; choose another table " +
    "or remove the entry",
);
const request = fatal(
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
 * The error codes that the VPC, ECS and gateway documentation and their other users name, with the
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
      "IncorrectVpcStatus",
      "IncorrectVSwitchStatus",
      "IncorrectHaVipStatus",
      "InvalidVBRStatus",
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

  // Needs an operator.
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
      "InvalidSecurityToken.*",
      "MissingSecurityToken",
    ],
    token,
  ),
  ...rows(
    [
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

/** The reaction to an error. */
export function react(
  { status, code, message }: {
    readonly status: number;
    readonly code: string;
    readonly message: string;
  },
): Reaction {
  const holds = (rule: ErrorRule) =>
    (rule.status === undefined || rule.status === status) &&
    (rule.message === undefined || rule.message.test(message));
  const exact = ERROR_RULES.filter((rule) => rule.code === code && holds(rule));
  const best = exact.find((rule) => rule.message !== undefined || rule.status !== undefined) ??
    exact[0];
  if (best !== undefined) return best.reaction;
  let prefix: ErrorRule | undefined;
  for (const rule of ERROR_RULES) {
    if (!rule.code.endsWith("*") || !code.startsWith(rule.code.slice(0, -1))) continue;
    if (rule.code.length > (prefix?.code.length ?? 0)) prefix = rule;
  }
  if (prefix !== undefined) return prefix.reaction;
  // How batches spell this one is not documented.
  if (/quota.*exceed|exceed.*quota/i.test(code)) return quota;
  return status >= 500 || status === 0 ? busy : fatal(
    "request",
    "the code is unknown here; see the service's documentation of it",
  );
}

type AliApiErrorDetails = Omit<CloudApiErrorDetails, "action" | "reaction"> & {
  readonly requestId?: string;
};

/** An error of one of Alibaba Cloud's services, with the {@linkcode Reaction} to it. */
export class AliApiError extends CloudApiError {
  override name = "AliApiError";

  /** `action` is as RAM names it: `vpc:CreateRouteEntry`. */
  constructor(
    { action, message, reaction: given }: {
      readonly action: string;
      readonly message: string;
      readonly reaction?: Reaction;
    },
    details: AliApiErrorDetails,
    options?: ErrorOptions,
  ) {
    const found = given ?? react({ ...details, message });
    const reaction: Reaction = found.do === "denied"
      ? { do: "denied", advice: adviseOnDenial(action) }
      : found;
    const advice = "advice" in reaction ? reaction.advice : "";
    const where = [
      details.status === 0 ? "" : `HTTP ${details.status}`,
      details.requestId === undefined ? "" : `request ${cleanText(details.requestId, 80)}`,
    ].filter((part) => part !== "").join(", ");
    const said = cleanText(message, 300);
    super(
      `Cannot call ${action}: ${cleanText(details.code, 80)}` +
        (said === "" ? "" : ` (${said})`) + (advice === "" ? "" : `; ${advice}`) +
        (where === "" ? "" : ` [${where}]`),
      { ...details, action, reaction },
      options,
    );
  }
}

/** The error of a reply that cannot be meant: the next try may bring a better one. */
export function oddReply(
  about: { readonly action: string; readonly message: string },
  code: string,
  details: { readonly outcomeUnknown?: boolean } = {},
): AliApiError {
  const reaction: Reaction = { do: "retry", cause: "busy", budgetSeconds: 10 * MINUTE };
  return new AliApiError({ ...about, reaction }, { ...details, status: 0, code });
}

/**
 * The error to throw before anything was written: an {@linkcode OperatorError}, so that the start
 * ends, for what needs an operator; anything else stays, so that the start tries again.
 */
export function asStartupError(error: unknown): unknown {
  return error instanceof AliApiError && "advice" in error.reaction
    ? new OperatorError(error.message, { cause: error })
    : error;
}
