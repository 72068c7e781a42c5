/** Where credentials come from, in order. @module */
import * as v from "valibot";
import { describeError, OperatorError } from "../../errors.ts";
import type { AliVpcConfig } from "../../backends/ali_vpc.ts";
import { forgetSecret, Secret } from "../../secret.ts";
import { abortable } from "../../util/abortable.ts";
import { httpRequest } from "../http.ts";
import { cleanText } from "../clean_text.ts";
import { react } from "./errors.ts";
import type { Metadata } from "./metadata.ts";

export interface Credentials {
  readonly accessKeyId: Secret;
  readonly accessKeySecret: Secret;
  readonly securityToken?: Secret;
  /** Milliseconds since the epoch; absent for keys that do not expire. */
  readonly expiresAt?: number;
}

/** Gives credentials that are valid now. */
export interface CredentialsProvider {
  get(options: { signal: AbortSignal }): Promise<Credentials>;
  /**
   * Says that the service refused `credentials`: the next `get` fetches new ones. `false` if there
   * are no others.
   */
  invalidate(credentials: Credentials): boolean;
}

export interface CredentialsChainOptions {
  readonly config: Pick<
    AliVpcConfig,
    "accessKeyId" | "accessKeySecret" | "securityToken" | "ramRole"
  >;
  readonly env: (name: string) => string | undefined;
  readonly metadata: Metadata;
  /** URL of the security token service, for the OIDC source. */
  readonly stsEndpoint: () => Promise<string>;
  /** Of one exchange with it. @default {10_000} */
  readonly stsTimeoutMs?: number;
  /** @default {Deno.readTextFile} */
  readonly readTextFile?: (path: string) => Promise<string>;
  /** Milliseconds since the epoch. @default {Date.now} */
  readonly now?: () => number;
  /** A number in [0, 1). @default {Math.random} */
  readonly random?: () => number;
}

interface Source {
  readonly name: string;
  /** Whether a later `load` may give others. */
  readonly renewable: boolean;
  /** @throws {NotConfiguredError} If the operator did not choose this source. */
  load(options: { signal: AbortSignal }): Credentials | Promise<Credentials>;
}

/** The source is not in use; the message says what is missing. */
class NotConfiguredError extends Error {}

/** Temporary keys are renewed this long before they end, like the official SDKs. */
const STALE_BEFORE_MS = 15 * 60_000;
/** After a renewal that failed or brought nothing newer. */
const RENEW_AGAIN_MS = 60_000;
/** Replaced keys may still be in a message that is being written. */
const FORGET_AFTER_MS = 60 * 60_000;

/**
 * The first source that works, in this order: backend config, `ACCESS_KEY_ID`,
 * `ALIBABA_CLOUD_ACCESS_KEY_ID`, RRSA (OIDC), instance RAM role. Once found it stays the one.
 * Temporary keys are renewed well before they end; while a renewal fails and the old ones are
 * still valid, those are given. Concurrent callers share one renewal.
 */
export class CredentialsChain implements CredentialsProvider, Disposable {
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #sources: readonly Source[];
  readonly #lifetime = new AbortController();
  #current: { credentials: Credentials; source: Source; renewAt: number } | undefined;
  #pending: Promise<Credentials> | undefined;
  #replaced: { credentials: Credentials; at: number }[] = [];

  constructor(options: CredentialsChainOptions) {
    this.#now = options.now ?? Date.now;
    this.#random = options.random ?? Math.random;
    this.#sources = [
      configSource(options),
      environmentSource(options, {
        id: "ACCESS_KEY_ID",
        secret: "ACCESS_KEY_SECRET",
      }),
      environmentSource(options, {
        id: "ALIBABA_CLOUD_ACCESS_KEY_ID",
        secret: "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        token: "ALIBABA_CLOUD_SECURITY_TOKEN",
      }),
      oidcSource(options, this.#now, this.#random),
      instanceRoleSource(options),
    ];
  }

  /** The source in use, for messages; `undefined` before the first `get`. */
  get source(): string | undefined {
    return this.#current?.source.name;
  }

  [Symbol.dispose](): void {
    this.#lifetime.abort(new Error("The credentials are closed"));
  }

  /**
   * @throws {OperatorError} If no source works and waiting cannot help; lists each with its reason.
   * @throws {Error} The same, if a source may work later.
   */
  async get(options: { signal: AbortSignal }): Promise<Credentials> {
    options.signal.throwIfAborted();
    const current = this.#current;
    if (current !== undefined && this.#now() < current.renewAt) return current.credentials;
    this.#pending ??= this.#renew().finally(() => this.#pending = undefined);
    return await abortable(this.#pending, options);
  }

  invalidate(credentials: Credentials): boolean {
    const current = this.#current;
    // Another call was refused before, and new ones are here already.
    if (current === undefined || current.credentials !== credentials) return true;
    if (!current.source.renewable) return false;
    this.#current = {
      ...current,
      renewAt: -Infinity,
      credentials: { ...credentials, expiresAt: 0 },
    };
    return true;
  }

  async #renew(): Promise<Credentials> {
    const options = { signal: this.#lifetime.signal };
    const { source, credentials } = this.#current ?? await this.#find(options);
    if (this.#current === undefined) return this.#keep(source, credentials);
    try {
      return this.#keep(source, await source.load(options));
    } catch (error) {
      if (this.#isValid(credentials)) {
        this.#current.renewAt = this.#now() + RENEW_AGAIN_MS * (0.5 + this.#random() / 2);
        return credentials;
      }
      throw new Error(
        `Cannot renew credentials from ${source.name}: ${cleanText(describeError(error))}`,
        { cause: error },
      );
    }
  }

  async #find(options: { signal: AbortSignal }): Promise<
    { source: Source; credentials: Credentials }
  > {
    const reasons: string[] = [];
    let hopeless = true;
    for (const source of this.#sources) {
      try {
        return { source, credentials: await source.load(options) };
      } catch (error) {
        options.signal.throwIfAborted();
        reasons.push(`${source.name}: ${cleanText(describeError(error), 400)}`);
        hopeless &&= error instanceof NotConfiguredError || error instanceof OperatorError;
      }
    }
    const message = `Cannot find credentials for Alibaba Cloud; tried ${reasons.join("; ")}`;
    throw hopeless ? new OperatorError(message) : new Error(message);
  }

  #keep(source: Source, credentials: Credentials): Credentials {
    const now = this.#now();
    const { expiresAt } = credentials;
    if (expiresAt !== undefined && expiresAt <= now) {
      throw new Error(`${source.name} gave credentials that have expired already`);
    }
    let renewAt = Infinity;
    if (expiresAt !== undefined) {
      const leftMs = expiresAt - now;
      const marginMs = Math.min(STALE_BEFORE_MS, leftMs / 3) * (1 + this.#random() / 3);
      renewAt = expiresAt - marginMs;
      // The service has not rotated yet: ask again soon, not at every call.
      if (this.#current !== undefined && sameKeys(this.#current.credentials, credentials)) {
        renewAt = now + Math.min(RENEW_AGAIN_MS, leftMs / 3) * (0.5 + this.#random() / 2);
      }
    }
    if (this.#current !== undefined && !sameKeys(this.#current.credentials, credentials)) {
      this.#replaced.push({ credentials: this.#current.credentials, at: now });
    }
    this.#current = { credentials, source, renewAt };
    this.#forget(now);
    return credentials;
  }

  #isValid(credentials: Credentials): boolean {
    return credentials.expiresAt === undefined || this.#now() < credentials.expiresAt;
  }

  /** Forgets keys that ended long ago, or the list of secrets would grow for ever. */
  #forget(now: number): void {
    const old = this.#replaced.filter(({ at }) => now - at > FORGET_AFTER_MS);
    this.#replaced = this.#replaced.filter((each) => !old.includes(each));
    // A service may rotate one part of the keys and keep another.
    const used = [this.#current, ...this.#replaced].filter((each) => each !== undefined);
    const inUse = new Set(used.flatMap(({ credentials }) => secretsOf(credentials)));
    for (const secret of old.flatMap(({ credentials }) => secretsOf(credentials))) {
      if (!inUse.has(secret)) forgetSecret(secret);
    }
  }
}

function secretsOf({ accessKeyId, accessKeySecret, securityToken }: Credentials): string[] {
  return [accessKeyId, accessKeySecret, ...(securityToken ? [securityToken] : [])]
    .map((secret) => secret.reveal());
}

function sameKeys(a: Credentials, b: Credentials): boolean {
  return a.accessKeyId.reveal() === b.accessKeyId.reveal() &&
    a.accessKeySecret.reveal() === b.accessKeySecret.reveal() &&
    a.securityToken?.reveal() === b.securityToken?.reveal();
}

function configSource({ config }: CredentialsChainOptions): Source {
  return {
    name: "backend config",
    renewable: false,
    load() {
      const { accessKeyId, accessKeySecret, securityToken } = config;
      if (accessKeyId === undefined || accessKeySecret === undefined) {
        throw new NotConfiguredError("it has no AccessKeyID and AccessKeySecret");
      }
      return { accessKeyId, accessKeySecret, ...(securityToken ? { securityToken } : {}) };
    },
  };
}

function environmentSource(
  { env }: CredentialsChainOptions,
  names: { id: string; secret: string; token?: string },
): Source {
  return {
    name: `${names.id}/${names.secret}`,
    renewable: false,
    load() {
      const [id, secret] = [env(names.id)?.trim(), env(names.secret)?.trim()];
      if (!id || !secret) {
        const missing = [!id && names.id, !secret && names.secret].filter((name) => name);
        const are = missing.length > 1 ? "are" : "is";
        throw new NotConfiguredError(`${missing.join(" and ")} ${are} not set`);
      }
      const token = names.token === undefined ? undefined : env(names.token)?.trim();
      return {
        accessKeyId: new Secret(id),
        accessKeySecret: new Secret(secret),
        ...(token ? { securityToken: new Secret(token) } : {}),
      };
    },
  };
}

const NonEmpty = v.pipe(v.string(), v.minLength(1, "is empty"), v.maxLength(16_384));
const Expiration = v.pipe(
  v.string(),
  v.transform((text) => Date.parse(text)),
  v.number("is not a time"),
  v.finite("is not a time"),
);
const TemporaryKeys = v.object({
  AccessKeyId: NonEmpty,
  AccessKeySecret: NonEmpty,
  SecurityToken: NonEmpty,
  Expiration,
});

function fromTemporaryKeys(keys: v.InferOutput<typeof TemporaryKeys>): Credentials {
  return {
    accessKeyId: new Secret(keys.AccessKeyId),
    accessKeySecret: new Secret(keys.AccessKeySecret),
    securityToken: new Secret(keys.SecurityToken),
    expiresAt: keys.Expiration,
  };
}

/** `issue` of a reply, by field name only: values are secret. */
function faultOf(issue: v.BaseIssue<unknown>): string {
  return `${v.getDotPath(issue) ?? "the answer"} is missing or malformed`;
}

/**
 * RAM Roles for Service Accounts: a pod's signed token is exchanged for keys of a role.
 * See https://api.aliyun.com/document/Sts/2015-04-01/AssumeRoleWithOIDC
 */
function oidcSource(
  options: CredentialsChainOptions,
  now: () => number,
  random: () => number,
): Source {
  const { env, stsEndpoint, stsTimeoutMs = 10_000 } = options;
  const { readTextFile = (path: string) => Deno.readTextFile(path) } = options;
  return {
    name: "RRSA (OIDC)",
    renewable: true,
    async load({ signal }) {
      const names = [
        "ALIBABA_CLOUD_ROLE_ARN",
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
      ] as const;
      const [role, provider, tokenFile] = names.map((name) => env(name)?.trim() ?? "");
      const missing = names.filter((name) => !env(name)?.trim());
      if (!role || !provider || !tokenFile) {
        throw new NotConfiguredError(`${missing.join(", ")} not set`);
      }
      let token: string;
      try {
        // Kubernetes renews the file: read it each time.
        token = (await readTextFile(tokenFile)).trim();
      } catch (cause) {
        throw new OperatorError(`Cannot read ALIBABA_CLOUD_OIDC_TOKEN_FILE ${tokenFile}`, {
          cause,
        });
      }
      const secret = new Secret(token);
      using _oneExchange = { [Symbol.dispose]: () => forgetSecret(token) };
      const { status, text: body } = await httpRequest(`${await stsEndpoint()}/`, {
        signal,
        method: "POST",
        timeoutMs: stsTimeoutMs,
        headers: { "content-type": "application/x-www-form-urlencoded" },
        body: new URLSearchParams({
          Action: "AssumeRoleWithOIDC",
          Version: "2015-04-01",
          Format: "JSON",
          Timestamp: new Date(now()).toISOString().replace(/\.\d+Z$/, "Z"),
          SignatureNonce: `${now()}-${random()}`,
          RoleArn: role,
          OIDCProviderArn: provider,
          OIDCToken: secret.reveal(),
          RoleSessionName: env("ALIBABA_CLOUD_ROLE_SESSION_NAME")?.trim() || "flanneld",
          DurationSeconds: "3600",
        }).toString(),
      });
      const reply = v.safeParse(
        v.object({
          Credentials: v.optional(TemporaryKeys),
          Code: v.optional(v.string()),
          Message: v.optional(v.string(), ""),
        }),
        parseJson(body),
      );
      if (!reply.success) {
        const fault = faultOf(reply.issues[0]);
        throw new Error(`AssumeRoleWithOIDC returns HTTP status ${status}: ${fault}`);
      }
      const { Credentials: keys, Code: code, Message: message } = reply.output;
      if (keys !== undefined) return fromTemporaryKeys(keys);
      const reason = `${code ?? `HTTP status ${status}`} ${cleanText(message)}`.trim();
      const text = `AssumeRoleWithOIDC of ${role}: ${reason}`;
      const reaction = react({ status, code: code ?? "", message });
      throw reaction.do === "fatal" || reaction.do === "denied"
        ? new OperatorError(text)
        : new Error(text);
    },
  };
}

/** The RAM role attached to this instance. */
function instanceRoleSource({ config, env, metadata }: CredentialsChainOptions): Source {
  const ROLE = /^[\w.@-]{1,64}$/;
  return {
    name: "instance RAM role",
    renewable: true,
    async load(options) {
      if (env("ALIBABA_CLOUD_ECS_METADATA_DISABLED")?.trim().toLowerCase() === "true") {
        throw new NotConfiguredError("switched off by ALIBABA_CLOUD_ECS_METADATA_DISABLED");
      }
      const base = "ram/security-credentials/";
      const named = config.ramRole ?? (env("ALIBABA_CLOUD_ECS_METADATA")?.trim() || undefined);
      // The listing names the one role that the instance has.
      const role = named ?? (await metadata.get(base, options))?.split("\n")[0]?.trim();
      if (role === undefined || role === "") {
        throw new OperatorError("this instance has no RAM role; attach one to it");
      }
      if (!ROLE.test(role)) throw new Error("the metadata service names no role where it should");
      const text = await metadata.get(base + role, options);
      if (text === undefined) {
        throw new OperatorError(`RAM role "${role}" is not attached to this instance`);
      }
      const reply = v.safeParse(
        v.object({ ...TemporaryKeys.entries, Code: v.literal("Success") }),
        parseJson(text),
      );
      if (!reply.success) {
        throw new Error(`keys of RAM role "${role}": ${faultOf(reply.issues[0])}`);
      }
      return fromTemporaryKeys(reply.output);
    },
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
