import { ApiError } from "./api_error.ts";
import type { Action, Call } from "./action.ts";
import type { Cloud } from "./cloud.ts";
import type { SessionCredentials } from "./credentials.ts";
import type { Parameters } from "./parameters.ts";

/** STS API 2015-04-01, signed part. */
export const stsActions: readonly Action[] = [
  { name: "GetCallerIdentity", handle: getCallerIdentity },
];

/** The one action that needs no signature: its proof is the OIDC token. */
export const ASSUME_ROLE_WITH_OIDC = "AssumeRoleWithOIDC";

const MIN_SECONDS = 900;
const MAX_SECONDS = 3600;

/** Exchanges an OIDC token for credentials of a role. @throws {ApiError} */
export function assumeRoleWithOidc(cloud: Cloud, params: Parameters): Record<string, unknown> {
  const providerArn = params.required("OIDCProviderArn");
  const roleArn = params.required("RoleArn");
  const token = params.required("OIDCToken");
  const sessionName = params.required("RoleSessionName");
  const seconds = params.integer("DurationSeconds", { min: 1, default: MAX_SECONDS });
  if (seconds < MIN_SECONDS || seconds > MAX_SECONDS) {
    throw new ApiError(
      400,
      "InvalidParameter.DurationSeconds",
      "The Min/Max value of DurationSeconds is 15min/1hr.",
    );
  }
  if (!/^[\w.@-]{2,64}$/.test(sessionName)) {
    throw new ApiError(
      400,
      "InvalidParameter.RoleSessionName",
      "The parameter RoleSessionName is wrongly formed.",
    );
  }
  const role = cloud.credentials.roleForOidc(roleArn, providerArn);
  const claims = cloud.credentials.verifyOidcToken(token);
  const session = cloud.credentials.openSession(role.name, seconds * 1000);
  return {
    Credentials: describeCredentials(session),
    AssumedRoleUser: {
      Arn: `acs:ram::${role.accountId}:assumed-role/${role.name}/${sessionName}`,
      AssumedRoleId: `3${role.accountId}:${sessionName}`,
    },
    OIDCTokenInfo: {
      Subject: claims.sub,
      Issuer: claims.iss,
      ClientIds: claims.aud,
      ExpirationTime: isoSeconds(claims.exp * 1000),
    },
  };
}

/** Credentials as STS and the metadata service spell them. */
export function describeCredentials(session: SessionCredentials): Record<string, string> {
  return {
    AccessKeyId: session.accessKeyId,
    AccessKeySecret: session.accessKeySecret,
    SecurityToken: session.securityToken,
    Expiration: isoSeconds(session.expiresAtMs),
  };
}

/** `2024-03-01T08:00:00Z` */
export function isoSeconds(timeMs: number): string {
  return new Date(timeMs).toISOString().replace(/\.\d+Z$/, "Z");
}

function getCallerIdentity({ principal }: Call): Record<string, unknown> {
  const { accountId, session, accessKeyId } = principal;
  return {
    AccountId: accountId,
    Arn: session
      ? `acs:ram::${accountId}:assumed-role/${session.role}/simulator`
      : `acs:ram::${accountId}:user/${accessKeyId}`,
    IdentityType: session ? "AssumedRoleUser" : "RAMUser",
    PrincipalId: session ? `3${accountId}:simulator` : accessKeyId,
    UserId: accessKeyId,
  };
}
