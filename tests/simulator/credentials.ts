import { createHmac, timingSafeEqual } from "node:crypto";
import type { Behaviour, cloudConfig } from "./config.ts";
import type { InferOutput } from "valibot";
import { ApiError } from "./api_error.ts";
import type { SeededRandom } from "./random.ts";

type ParsedCloud = InferOutput<typeof cloudConfig>;

/** Whoever signs a request: a user's access key, or a session of a role. */
export interface Principal {
  readonly accessKeyId: string;
  secret: string;
  readonly accountId: string;
  active: boolean;
  /** `undefined`: everything. */
  allow: string[] | undefined;
  /** Set for sessions. */
  readonly session?: { readonly role: string; readonly token: string; expiresAtMs: number };
}

/** Credentials of a role, as the metadata service and STS hand them out. */
export interface SessionCredentials {
  readonly accessKeyId: string;
  readonly accessKeySecret: string;
  readonly securityToken: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

interface Role {
  readonly name: string;
  readonly accountId: string;
  allow: string[] | undefined;
  lifetimeMs: number;
  renewBeforeMs: number;
  readonly oidcProviderArns: readonly string[];
  /** What the metadata service hands out at present. */
  current?: SessionCredentials;
}

/** Claims of an identity token that {@linkcode Credentials.issueOidcToken} signed. */
export interface OidcClaims {
  readonly iss: string;
  readonly sub: string;
  readonly aud: string;
  /** Seconds since the epoch. */
  readonly exp: number;
}

/** Access keys, roles, their sessions, and what each may do. */
export class Credentials {
  readonly #principals = new Map<string, Principal>();
  readonly #roles = new Map<string, Role>();
  readonly #denied = new Set<string>();
  readonly #random: SeededRandom;
  readonly #nowMs: () => number;
  readonly #oidcSecret: string;

  constructor(config: ParsedCloud, context: { random: SeededRandom; nowMs: () => number }) {
    this.#random = context.random;
    this.#nowMs = context.nowMs;
    this.#oidcSecret = context.random.text(32);
    for (const key of config.accessKeys) {
      this.#principals.set(key.id, {
        accessKeyId: key.id,
        secret: key.secret,
        accountId: key.accountId ?? config.accountId,
        active: key.active,
        allow: key.allow,
      });
    }
    for (const { accountId, allow, ...role } of config.roles) {
      this.#roles.set(role.name, { ...role, allow, accountId: accountId ?? config.accountId });
    }
  }

  find(accessKeyId: string): Principal | undefined {
    return this.#principals.get(accessKeyId);
  }

  /** Gives an access key another secret; `active` false disables it. */
  setAccessKey(id: string, change: { secret?: string; active?: boolean; allow?: string[] }): void {
    const principal = this.#principals.get(id);
    if (!principal) throw new Error(`Cannot change access key ${id}: there is none`);
    if (change.secret !== undefined) principal.secret = change.secret;
    if (change.active !== undefined) principal.active = change.active;
    if (change.allow !== undefined) principal.allow = change.allow;
  }

  removeAccessKey(id: string): void {
    if (!this.#principals.delete(id)) throw new Error(`Cannot remove access key ${id}: none such`);
  }

  /** Whether `role` exists. */
  hasRole(role: string): boolean {
    return this.#roles.has(role);
  }

  setRole(
    name: string,
    change: { allow?: string[]; lifetimeMs?: number; renewBeforeMs?: number },
  ): void {
    Object.assign(this.#role(name), change);
  }

  /** What the metadata service answers now; renewed shortly before expiry. */
  roleCredentials(name: string): SessionCredentials {
    const role = this.#role(name);
    const { current } = role;
    if (current && current.expiresAtMs - this.#nowMs() > role.renewBeforeMs) return current;
    return role.current = this.openSession(name, role.lifetimeMs);
  }

  /** New credentials at the metadata service at once; `revoke` ends every session before. */
  rotateRole(name: string, options: { revoke?: boolean } = {}): void {
    const role = this.#role(name);
    if (options.revoke) this.expireSessions(name);
    role.current = this.openSession(name, role.lifetimeMs);
  }

  /** Every session of the role counts as expired from now on. */
  expireSessions(name: string): void {
    for (const { session } of this.#principals.values()) {
      if (session?.role === name) {
        session.expiresAtMs = Math.min(session.expiresAtMs, this.#nowMs());
      }
    }
  }

  openSession(name: string, lifetimeMs: number): SessionCredentials {
    const role = this.#role(name);
    const nowMs = this.#nowMs();
    const credentials: SessionCredentials = {
      accessKeyId: `STS.N${this.#random.text(24)}`,
      accessKeySecret: this.#random.text(44),
      // Real tokens are long and of the base64 alphabet, + and / included.
      securityToken: `CAIS${this.#random.text(400)}+/${this.#random.text(200)}==`,
      issuedAtMs: nowMs,
      // The service speaks whole seconds.
      expiresAtMs: Math.floor((nowMs + lifetimeMs) / 1000) * 1000,
    };
    this.#principals.set(credentials.accessKeyId, {
      accessKeyId: credentials.accessKeyId,
      secret: credentials.accessKeySecret,
      accountId: role.accountId,
      active: true,
      allow: role.allow,
      session: {
        role: name,
        token: credentials.securityToken,
        expiresAtMs: credentials.expiresAtMs,
      },
    });
    return credentials;
  }

  /** The role of an ARN `acs:ram::<account>:role/<name>` that `providerArn` may assume. */
  roleForOidc(roleArn: string, providerArn: string): { name: string; accountId: string } {
    const match = /^acs:ram::(\d+):role\/(.+)$/.exec(roleArn);
    const role = match ? this.#roles.get(match[2]!) : undefined;
    if (!role || role.accountId !== match?.[1]) {
      throw new ApiError(404, "EntityNotExist.Role", `The role not exists: ${roleArn}.`);
    }
    if (!role.oidcProviderArns.includes(providerArn)) {
      throw new ApiError(
        403,
        "NoPermission",
        "You are not authorized to do this action. You should be authorized by RAM.",
      );
    }
    return role;
  }

  /** A JWT (HS256) that AssumeRoleWithOIDC takes until `lifetimeMs` have passed. */
  issueOidcToken(options: { subject: string; lifetimeMs: number }): string {
    const claims: OidcClaims = {
      iss: "https://oidc.simulator.invalid",
      sub: options.subject,
      aud: "sts.aliyuncs.com",
      exp: Math.floor((this.#nowMs() + options.lifetimeMs) / 1000),
    };
    const body = [{ alg: "HS256", typ: "JWT" }, claims]
      .map((part) => encodeBase64Url(new TextEncoder().encode(JSON.stringify(part)))).join(".");
    return `${body}.${this.#oidcSignature(body)}`;
  }

  /** @throws {ApiError} If the token is not one of ours, or has expired. */
  verifyOidcToken(token: string): OidcClaims {
    const body = token.slice(0, Math.max(0, token.lastIndexOf(".")));
    if (!equalTexts(this.#oidcSignature(body), token.slice(body.length + 1))) {
      throw new ApiError(
        400,
        "AuthenticationFail.OIDCToken.Invalid",
        "This OIDC Token is invalid: signature verification failed.",
      );
    }
    const payload = atob(body.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/"));
    const claims = JSON.parse(payload) as OidcClaims;
    if (claims.exp * 1000 <= this.#nowMs()) {
      throw new ApiError(
        400,
        "AuthenticationFail.OIDCToken.Expired",
        "This JWT Token is expired or not yet valid.",
      );
    }
    return claims;
  }

  /** Denies an action (`vpc:CreateRouteEntry`, `ecs:*`) to everyone. */
  denyAction(action: string): void {
    this.#denied.add(action);
  }

  /** Takes back {@linkcode Credentials.denyAction}. */
  permitAction(action: string): void {
    this.#denied.delete(action);
  }

  /** @throws {ApiError} If `principal` may not do `action`. */
  authorize(principal: Principal, action: string, behaviour: Behaviour): void {
    const allowed = (principal.allow ?? ["*"]).some((pattern) => matchesAction(pattern, action));
    const denied = [...this.#denied].some((pattern) => matchesAction(pattern, action));
    if (allowed && !denied) return;
    const message =
      "User not authorized to operate on the specified resource, or this API doesn't support RAM.";
    if (behaviour.denial === "Forbidden.RAM") throw new ApiError(403, "Forbidden.RAM", message);
    throw new ApiError(
      403,
      "NoPermission",
      `You are not authorized to do this action: ${action}.`,
      {
        AccessDeniedDetail: {
          AuthAction: action,
          AuthPrincipalType: principal.session ? "AssumedRoleUser" : "SubUser",
          AuthPrincipalDisplayName: principal.session?.role ?? principal.accessKeyId,
          AuthPrincipalOwnerId: principal.accountId,
          NoPermissionType: denied ? "ExplicitDeny" : "ImplicitDeny",
          PolicyType: "AccountLevelIdentityBasedPolicy",
        },
      },
    );
  }

  #role(name: string): Role {
    const role = this.#roles.get(name);
    if (!role) throw new Error(`Cannot use RAM role ${name}: there is none`);
    return role;
  }

  #oidcSignature(body: string): string {
    return encodeBase64Url(createHmac("sha256", this.#oidcSecret).update(body).digest());
  }
}

/** Whether `action` (`vpc:CreateRouteEntry`) matches `pattern`, in which `*` stands for any text. */
export function matchesAction(pattern: string, action: string): boolean {
  const parts = pattern.split("*").map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(action);
}

/** Whether two texts are equal, in a time that does not tell where they differ. */
export function equalTexts(one: string, other: string): boolean {
  const [a, b] = [new TextEncoder().encode(one), new TextEncoder().encode(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function encodeBase64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
