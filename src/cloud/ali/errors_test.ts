import assert from "node:assert/strict";
import { OperatorError } from "../../errors.ts";
import { AliApiError, asStartupError, ERROR_RULES, react } from "./errors.ts";

/** Codes as the documentation and their other users spell them, and the class each one has. */
const CODES: readonly (readonly [reaction: string, ...codes: string[]])[] = [
  [
    "retry turn",
    "TaskConflict",
    "OperationConflict",
    "OperationFailed.DistibuteLock",
    "LastTokenProcessing",
    "Operation.Conflict",
    "InvalidOperation.Conflict",
  ],
  [
    "retry changing",
    "IncorrectRouteEntryStatus",
    "IncorrcetRouteEntryStatus",
    "IncorrectStatus.VpcRouteEntry",
    "IncorrectVpcStatus",
    "IncorrectVSwitchStatus",
    "IncorrectHaVipStatus",
    "InvalidVBRStatus",
    "IncorrectStatus.RouteTableStatus",
    "IncorrectStatus.Ipv4Gateway",
    "IncorrectStatus.VpcPeer",
    "IncorrectStatus.MultiScopeRiRouteEntry",
    "IncorrectStatus.RouterInterface",
    "IncorrectStatus.PrefixList",
  ],
  ["retry instance", "IncorrectInstanceStatus", "IncorrectStatus.Ipv6Address"],
  [
    "retry throttled",
    "Throttling",
    "Throttling.User",
    "Throttling.Api",
    "Throttling.Anything",
    "Rejected.Throttling",
  ],
  [
    "retry busy",
    "SystemBusy",
    "UnknownError",
    "ServiceUnavailable",
    "InternalError",
    "Internal.Error",
    "Vpc.Error",
    "VPC.ERROR",
  ],
  [
    "retry peering",
    "IncorrectStatus.CenRelation",
    "OperationFailed.NotifyCenCreate",
    "OperationFailed.NotifyCenDelete",
  ],
  ["retry busy", "SignatureNonceUsed"],
  [
    "exists",
    "InvalidCIDRBlock.Duplicate",
    "InvalidRouteEntry.Duplicate",
    "RouterEntryConflict.Duplicated",
    "RouteConflict.AlreadyExist",
    "Duplicated.VpcNextHop",
    "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
    "VPC_ROUTE_ENTRY_STATUS_ERROR",
  ],
  [
    "gone",
    "InvalidRouteEntry.NotFound",
    "InvalidRouteEntryId.NotFound",
    "VPC_ROUTER_ENTRY_NOT_EXIST",
  ],
  ["quota", "QuotaExceeded", "QuotaExceeded.RouteEntry"],
  ["fatal quota-service", "InvalidEntryRuleQuota.NotFound", "Forbidden.CheckEntryRuleQuota"],
  [
    "fatal table",
    "InvalidRouteTableId.NotFound",
    "InvalidRouteTable.NotFound",
    "InvalidVRouter.NotFound",
    "InvalidVPC.NotFound",
    "InvalidVpcId.NotFound",
  ],
  [
    "fatal next-hop",
    "InvalidInstanId.NotFound",
    "InvalidNextHopId.NotFound",
    "InvalidNextHop.NotFound",
    "InvalidNexthop.NotFound",
    "IllegalParam.NextHopId",
    "OperationFailed.InstanceDismatchCurrentVpc",
    "OperationFailed.InvalidNexthop",
  ],
  [
    "fatal destination",
    "InvalidCidrBlock",
    "InvalidCidrBlock.Malformed",
    "IllegalParam.CidrBlock",
    "InvalidDestinationCidrBlock",
    "FORBIDDEN_USE_VPC_AS_INTERNET_GATEWAY",
  ],
  [
    "fatal foreign",
    "OperationDenied",
    "Forbbiden",
    "OperationDenied.DeleteManagedRouteEntry",
    "OperationDenied.RouteTableTypeNotPermitted",
    "OperationDenied.UseGatewayRouteEntryQueryInterface",
  ],
  ["denied", "Forbidden.RAM", "NoPermission", "Forbidden", "ActionUnauthorized"],
  [
    "fatal key",
    "InvalidAccessKeyId.NotFound",
    "InvalidAccessKeyId.Inactive",
    "Forbidden.AccessKeyDisabled",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
  ],
  ["fatal clock", "InvalidTimeStamp.Expired", "InvalidTimeStamp.Format"],
  [
    "credentials",
    "InvalidSecurityToken.Expired",
    "InvalidSecurityToken.Malformed",
    "InvalidSecurityToken.MismatchWithAccessKey",
    "MissingSecurityToken",
  ],
  [
    "fatal request",
    "MissingParameter",
    "MissingRegionId",
    "InvalidApi.NotFound",
    "InvalidAction.NotFound",
    "InvalidProtocol.NeedSsl",
  ],
  ["pass", "DryRunOperation"],
];

function classOf(code: string, status = 400, message = ""): string {
  const reaction = react({ status, code, message });
  if (reaction.do === "retry") return `retry ${reaction.cause}`;
  return reaction.do === "fatal" ? `fatal ${reaction.about}` : reaction.do;
}

Deno.test("react() knows every code of the documentation", () => {
  for (const [expected, ...codes] of CODES) {
    for (const code of codes) assert.equal(classOf(code), expected, code);
  }
});

Deno.test("react() has no row that the test above does not know", () => {
  const listed = new Set(CODES.flatMap(([, ...codes]) => codes));
  const further = ERROR_RULES.filter((rule) =>
    !rule.code.endsWith("*") && rule.message === undefined && rule.status === undefined &&
    !listed.has(rule.code)
  ).map((rule) => rule.code);
  // Spellings seen at other actions of the same services, and the documented words' variants.
  assert.deepEqual(further.sort(), [
    "AuthenticationFail.NoPermission",
    "IdempotentParameterMismatch",
    "InvalidEniId.NotFound",
    "InvalidInstanceId.NotFound",
    "InvalidParameter",
    "InvalidRegionId.NotFound",
    "InvalidVSwitchId.NotFound",
    "InvalidVpcID.NotFound",
    "UnauthorizedOperation",
  ]);
});

Deno.test("react() reads the message where one code has two meanings", () => {
  assert.equal(
    classOf("InvalidCidrBlock", 400, "Specified CIDR block is already exists"),
    "exists",
  );
  assert.equal(
    classOf("InvalidCidrBlock", 400, "Specified CIDR block is not valid."),
    "fatal destination",
  );
  assert.equal(classOf("InvalidRouteEntry", 400, "The entry does not exist."), "gone");
  assert.equal(classOf("InvalidParameter", 404), "fatal next-hop");
  assert.equal(classOf("InvalidParameter", 400), "fatal request");
});

Deno.test("react() knows a full table however a batch spells it", () => {
  for (const code of ["VPC_ROUTE_ENTRY_QUOTA_EXCEEDED", "RouteEntryQuotaExceed", "EXCEED_QUOTA"]) {
    assert.equal(classOf(code, 200), "quota", code);
  }
});

Deno.test("react() retries what the server did, stops at what it does not know", () => {
  assert.equal(classOf("Whatever", 503), "retry busy");
  assert.equal(classOf("Timeout", 0), "retry busy");
  assert.equal(classOf("Whatever", 400), "fatal request");
  assert.equal(classOf("", 404), "fatal request");
});

Deno.test("AliApiError names the action that RAM denies and where the policy stands", () => {
  const error = new AliApiError(
    { action: "vpc:CreateRouteEntry", message: "User not authorized" },
    { status: 403, code: "Forbidden.RAM", requestId: "A-1" },
  );
  assert.equal(
    error.message,
    "Cannot call vpc:CreateRouteEntry: Forbidden.RAM (User not authorized); allow " +
      'vpc:CreateRouteEntry in the RAM policy of this key or role (docs/install-ecs.md, "RAM policy", has the ' +
      "smallest one); only hosts that write routes need it: where others do, start this one with " +
      "--ali-route-writer=never [HTTP 403, request A-1]",
  );
  const ofInterface = new AliApiError(
    { action: "ecs:ModifyNetworkInterfaceAttribute", message: "" },
    { status: 403, code: "Forbidden.RAM" },
  );
  assert.match(
    ofInterface.message,
    /; allow ecs:Modify\w+ in .* has the smallest one\) \[HTTP 403]$/,
  );
  assert.equal(error.reaction.do, "denied");
  assert(asStartupError(error) instanceof OperatorError);
});

Deno.test("asStartupError() leaves what time may mend", () => {
  const error = new AliApiError(
    { action: "vpc:DescribeVpcAttribute", message: "" },
    { status: 400, code: "Throttling.User" },
  );
  assert.equal(asStartupError(error), error);
});
