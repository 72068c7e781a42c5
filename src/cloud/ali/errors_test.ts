import assert from "node:assert/strict";
import { OperatorError } from "../../errors.ts";
import { Secret } from "../../secret.ts";
import { AliApiError, asStartupError, cleanText, ERROR_RULES, react } from "./errors.ts";

/** Codes as the documentation and their other users spell them, and the class each one has. */
const CODES: readonly (readonly [reaction: string, ...codes: string[]])[] = [
  [
    "retry task",
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
    "retry cen",
    "IncorrectStatus.CenRelation",
    "OperationFailed.NotifyCenCreate",
    "OperationFailed.NotifyCenDelete",
  ],
  ["retry nonce", "SignatureNonceUsed"],
  [
    "settle exists",
    "InvalidCIDRBlock.Duplicate",
    "InvalidRouteEntry.Duplicate",
    "RouterEntryConflict.Duplicated",
    "RouteConflict.AlreadyExist",
    "Duplicated.VpcNextHop",
    "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
    "VPC_ROUTE_ENTRY_STATUS_ERROR",
  ],
  [
    "settle gone",
    "InvalidRouteEntry.NotFound",
    "InvalidRouteEntryId.NotFound",
    "VPC_ROUTER_ENTRY_NOT_EXIST",
  ],
  ["stop quota", "QuotaExceeded", "QuotaExceeded.RouteEntry"],
  ["stop quota-service", "InvalidEntryRuleQuota.NotFound", "Forbidden.CheckEntryRuleQuota"],
  [
    "stop table",
    "InvalidRouteTableId.NotFound",
    "InvalidRouteTable.NotFound",
    "InvalidVRouter.NotFound",
    "InvalidVPC.NotFound",
    "InvalidVpcId.NotFound",
  ],
  [
    "stop next-hop",
    "InvalidInstanId.NotFound",
    "InvalidNextHopId.NotFound",
    "InvalidNextHop.NotFound",
    "InvalidNexthop.NotFound",
    "IllegalParam.NextHopId",
    "OperationFailed.InstanceDismatchCurrentVpc",
    "OperationFailed.InvalidNexthop",
  ],
  [
    "stop destination",
    "InvalidCidrBlock",
    "InvalidCidrBlock.Malformed",
    "IllegalParam.CidrBlock",
    "InvalidDestinationCidrBlock",
    "FORBIDDEN_USE_VPC_AS_INTERNET_GATEWAY",
  ],
  [
    "stop foreign",
    "OperationDenied",
    "Forbbiden",
    "OperationDenied.DeleteManagedRouteEntry",
    "OperationDenied.RouteTableTypeNotPermitted",
    "OperationDenied.UseGatewayRouteEntryQueryInterface",
  ],
  ["stop denied", "Forbidden.RAM", "NoPermission", "Forbidden", "ActionUnauthorized"],
  [
    "stop key",
    "InvalidAccessKeyId.NotFound",
    "InvalidAccessKeyId.Inactive",
    "Forbidden.AccessKeyDisabled",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
  ],
  ["stop clock", "InvalidTimeStamp.Expired", "InvalidTimeStamp.Format"],
  [
    "credentials",
    "InvalidSecurityToken.Expired",
    "InvalidSecurityToken.Malformed",
    "InvalidSecurityToken.MismatchWithAccessKey",
    "MissingSecurityToken",
  ],
  [
    "stop request",
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
  if (reaction.do === "retry" || reaction.do === "stop") return `${reaction.do} ${reaction.cause}`;
  return reaction.do === "settle" ? `settle ${reaction.as}` : reaction.do;
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
    "settle exists",
  );
  assert.equal(
    classOf("InvalidCidrBlock", 400, "Specified CIDR block is not valid."),
    "stop destination",
  );
  assert.equal(classOf("InvalidRouteEntry", 400, "The entry does not exist."), "settle gone");
  assert.equal(classOf("InvalidParameter", 404), "stop next-hop");
  assert.equal(classOf("InvalidParameter", 400), "stop request");
});

Deno.test("react() knows a full table however a batch spells it", () => {
  for (const code of ["VPC_ROUTE_ENTRY_QUOTA_EXCEEDED", "RouteEntryQuotaExceed", "EXCEED_QUOTA"]) {
    const reaction = react({ status: 200, code, message: "" });
    assert(reaction.do === "stop" && reaction.cause === "quota", code);
  }
});

Deno.test("react() retries what the server did, stops at what it does not know", () => {
  assert.equal(classOf("Whatever", 503), "retry busy");
  assert.equal(classOf("Timeout", 0), "retry busy");
  assert.equal(classOf("Whatever", 400), "stop request");
  assert.equal(classOf("", 404), "stop request");
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
  assert(error.denied);
  assert.equal(error.retriable, false);
  assert(asStartupError(error) instanceof OperatorError);
});

Deno.test("asStartupError() leaves what time may mend", () => {
  const error = new AliApiError(
    { action: "vpc:DescribeVpcAttribute", message: "" },
    { status: 400, code: "Throttling.User" },
  );
  assert.equal(asStartupError(error), error);
  assert(error.retriable);
});

Deno.test("cleanText() removes what the service and the library repeat", () => {
  new Secret("canary-secret-value");
  const texts = [
    "server string to sign is:POST&%2F&AccessKeyId%3DLTAI5tCanary0001%26Action%3DX",
    "Bad, URL: https://vpc.example/?AccessKeyId=LTAI5tCanary0001&SecurityToken=CANARYTOKEN",
    "POST https://vpc.example/?Signature=CANARYTOKEN&x=1 failed.",
    '{"AccessKeyId":"LTAI5tCanary0001","SecurityToken":"CANARYTOKEN"}',
    "key STS.NUCanary0001abc is unknown",
    "SecurityToken=CANARYTOKEN",
    "a canary-secret-value b",
    "canary%2Dsecret-value LTAI5tCanary0001",
  ];
  for (const text of texts) {
    assert.doesNotMatch(cleanText(text), /Canary0001|CANARYTOKEN|canary-secret-value/, text);
  }
  assert.equal(cleanText("two\n\u001b[31mlines\u0000"), "two [31mlines");
  assert.equal(cleanText("x".repeat(1000)).length, 301);
});
