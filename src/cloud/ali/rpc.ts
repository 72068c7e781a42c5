/** Calls of RPC-style services, signed by the SDK. @module */
import type http from "node:http";
import * as v from "valibot";
import { abortable } from "../../util/abortable.ts";
import { limitAnswer } from "../answer_limit.ts";
import { onBrokenBody } from "../broken_body.ts";
import type { RateLimiter } from "../rate_limiter.ts";
import type { Credentials, CredentialsProvider } from "./credentials.ts";
import { AliApiError } from "./errors.ts";
import type { Reaction } from "../routes/cloud_error.ts";
import type { WriteOptions } from "../routes/provider.ts";
import { Silence } from "../routes/silence.ts";

/** A request parameter; lists become `Name.1`, `Name.2`, …, and `undefined` is left out. */
export type Parameter =
  | string
  | number
  | boolean
  | readonly string[]
  | readonly Readonly<Record<string, string>>[]
  | undefined;

/** The parameters of a call, in the API's names. */
export type Parameters = Readonly<Record<string, Parameter>>;

export interface RpcOptions {
  /** As RAM names it: the `vpc` of `vpc:CreateRouteEntry`. */
  readonly service: "vpc" | "ecs";
  /** Returns a URL with scheme. */
  readonly endpoint: () => Promise<string>;
  readonly apiVersion: string;
  readonly credentials: CredentialsProvider;
  readonly limiter: RateLimiter;
  /** Told whether calls get a response. */
  readonly silence?: Silence;
  /** @default {5_000} */
  readonly connectTimeoutMs?: number;
  /**
   * From connection to the end of the reply; half of it for reads, whose repetition is harmless.
   * @default {20_000}
   */
  readonly timeoutMs?: number;
}

/** One RPC-style service of Alibaba Cloud. */
export interface Rpc {
  /**
   * Makes one call and checks the reply against `schema`. Refused credentials are renewed once, a
   * repeated nonce is drawn anew; nothing else is tried twice.
   *
   * @throws {AliApiError} On any failure; `outcomeUnknown` if a write may have happened.
   * @throws `signal.reason` on abort, at once; a write may have happened then.
   */
  call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Parameters,
    schema: Schema,
    options: WriteOptions,
  ): Promise<v.InferOutput<Schema>>;
}

interface PopCredentials {
  accessKeyId: string;
  accessKeySecret: string;
  securityToken?: string;
}

/** What 1.8.0 has; its declarations lag behind (no `credentialsProvider`, no `verbose`). */
type PopClientConstructor = new (
  config: {
    endpoint: string;
    apiVersion: string;
    credentialsProvider: { getCredentials(): Promise<PopCredentials> };
  },
  verbose: true,
) => PopClient;

interface PopClient {
  keepAliveAgent: http.Agent;
  request(
    action: string,
    parameters: object,
    options: object,
  ): Promise<[unknown, { response: { statusCode: number } }]>;
}

const NONCE_TRIES = 3;
/** The largest real replies, lists of a hundred interfaces, have a few hundred kilobytes. */
const MAX_ANSWER_BYTES = 4 * 2 ** 20;

/** What the first call opens. */
interface Opened {
  readonly endpoint: string;
  readonly client: (getCredentials: () => Promise<PopCredentials>) => PopClient;
  readonly agent: http.Agent;
}

/**
 * Makes pop-core's `RPCClient` safe to use. The first call loads it and looks up the endpoint, so
 * that whoever makes none pays for neither.
 */
export class PopRpc implements Rpc, AsyncDisposable {
  readonly #options: Required<Omit<RpcOptions, "silence">>;
  readonly #silence: Silence;
  readonly #lifetime = new AbortController();
  #opened: Promise<Opened> | undefined;
  /** A call that was given up may break afterwards. */
  readonly #broken = onBrokenBody(() => {});

  constructor(options: RpcOptions) {
    this.#options = { connectTimeoutMs: 5_000, timeoutMs: 20_000, ...options };
    this.#silence = options.silence ?? new Silence();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lifetime.abort(new Error(`The client of ${this.#options.service} is closed`));
    const opened = await this.#opened?.catch(() => undefined);
    opened?.agent.destroy();
    this.#broken[Symbol.dispose]();
  }

  async call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Parameters,
    schema: Schema,
    options: WriteOptions,
  ): Promise<v.InferOutput<Schema>> {
    this.#lifetime.signal.throwIfAborted();
    this.#opened ??= this.#open().catch((error) => {
      this.#opened = undefined;
      throw error;
    });
    const answer = await this.#repeat(
      await abortable(this.#opened, options),
      action,
      parameters,
      options,
    );
    const parsed = v.safeParse(schema, answer);
    if (parsed.success) return parsed.output;
    const issue = parsed.issues[0];
    throw this.#error(action, {
      code: "UnexpectedAnswer",
      message: `${v.getDotPath(issue) ?? "the answer"}: ${issue.message}`,
    });
  }

  async #open(): Promise<Opened> {
    const { apiVersion } = this.#options;
    const endpoint = await this.#options.endpoint();
    // The package's index would load a second client and an XML parser with it.
    const { default: Client } = await import("@alicloud/pop-core/lib/rpc.js");
    const client: Opened["client"] = (getCredentials) =>
      new (Client as unknown as PopClientConstructor)(
        { endpoint, apiVersion, credentialsProvider: { getCredentials } },
        true,
      );
    const agent = client(() => Promise.reject(new Error("not for calls"))).keepAliveAgent;
    return { endpoint, client, agent };
  }

  /** Repeats the call where a new signature alone helps. */
  async #repeat(
    opened: Opened,
    action: string,
    parameters: Parameters,
    options: WriteOptions,
  ): Promise<unknown> {
    let renewed = false;
    for (let tries = 1;; tries++) {
      await this.#options.limiter.take(options);
      const credentials = await this.#options.credentials.get(options);
      await options.beforeSend?.({ signal: options.signal });
      try {
        const answer = await this.#once(opened, action, parameters, credentials, options);
        this.#silence.over();
        return answer;
      } catch (error) {
        if (!(error instanceof AliApiError)) throw error;
        if (error.status === 0 || error.status >= 500) this.#silence.unanswered();
        else this.#silence.over();
        const { reaction } = error;
        if (reaction.do === "retry" && reaction.cause === "throttled") {
          this.#options.limiter.pause(2_000);
        }
        if (error.code === "SignatureNonceUsed" && tries < NONCE_TRIES) continue;
        // A temporary key that has just expired is reported as an unknown key by some services.
        const stale = reaction.do === "credentials" ||
          (reaction.do === "fatal" && reaction.about === "key" &&
            credentials.securityToken !== undefined);
        if (!stale || renewed || !this.#options.credentials.invalidate(credentials)) throw error;
        renewed = true;
      }
    }
  }

  async #once(
    { endpoint, client: open, agent }: Opened,
    action: string,
    parameters: Parameters,
    credentials: Credentials,
    options: { signal: AbortSignal },
  ): Promise<unknown> {
    const { connectTimeoutMs } = this.#options;
    const timeoutMs = this.#options.timeoutMs / (isWrite(action) ? 1 : 2);
    // pop-core cannot be told to stop: this ends the socket when nobody waits any more.
    const call = new AbortController();
    const onClose = () => call.abort(this.#lifetime.signal.reason);
    this.#lifetime.signal.addEventListener("abort", onClose, { once: true });
    const timer = setTimeout(
      () => call.abort(new DOMException(`No answer within ${timeoutMs} ms`, "TimeoutError")),
      connectTimeoutMs + timeoutMs,
    );
    using _broken = onBrokenBody(() => call.abort(new Error("The answer was cut short")));
    const client = open(() =>
      Promise.resolve({
        accessKeyId: credentials.accessKeyId.reveal(),
        accessKeySecret: credentials.accessKeySecret.reveal(),
        ...(credentials.securityToken ? { securityToken: credentials.securityToken.reveal() } : {}),
      })
    );
    try {
      if (this.#lifetime.signal.aborted) throw this.#lifetime.signal.reason;
      const [answer, { response }] = await abortable(
        abortable(
          client.request(action, flatten(parameters), {
            method: "POST",
            connectTimeout: connectTimeoutMs,
            readTimeout: timeoutMs,
            agent,
            beforeRequest: (request: object) => ({
              ...request,
              agent: watchedAgent(agent, (sent) =>
                limitAnswer(sent, {
                  maxBytes: MAX_ANSWER_BYTES,
                  refuse: (reason) => call.abort(new RefusedAnswerError(reason)),
                })),
              signal: call.signal,
            }),
          }),
          call,
        ),
        options,
      );
      if (response.statusCode >= 400) {
        throw this.#error(action, {
          code: `HTTP${response.statusCode}`,
          message: "the answer carries no error code",
          status: response.statusCode,
        });
      }
      return answer;
    } catch (thrown) {
      options.signal.throwIfAborted();
      if (thrown instanceof AliApiError) throw thrown;
      throw this.#fromThrown(action, thrown, endpoint);
    } finally {
      clearTimeout(timer);
      this.#lifetime.signal.removeEventListener("abort", onClose);
      call.abort(new Error("The call has ended"));
    }
  }

  /** What pop-core throws: API errors, socket errors, time-outs, and plain objects. */
  #fromThrown(action: string, thrown: unknown, endpoint: string): AliApiError {
    const fields = v.safeParse(ThrownSchema, thrown);
    const seen = fields.success ? fields.output : {};
    const data = seen.data;
    if (data?.Code !== undefined) {
      return this.#error(action, {
        code: String(data.Code),
        message: typeof data.Message === "string" ? data.Message : "",
        status: seen.entry?.response?.statusCode ?? 0,
        ...(typeof data.RequestId === "string" ? { requestId: data.RequestId } : {}),
      });
    }
    if (thrown instanceof RefusedAnswerError) {
      return this.#error(action, { code: "UnreadableAnswer", message: thrown.message });
    }
    if (seen.name === "SyntaxError" || thrown instanceof TypeError) {
      return this.#error(action, {
        code: "UnreadableAnswer",
        message: "the answer is not a JSON object; a proxy or another service may have given it",
      });
    }
    if (seen.name === "RequestTimeoutError" || seen.name === "TimeoutError") {
      return this.#error(action, {
        code: "Timeout",
        message: `no answer from ${endpoint} in time`,
      });
    }
    const reason = typeof seen.code === "string" ? seen.code : undefined;
    return this.#error(action, {
      code: "NoConnection",
      // The library appends the URL; the code alone tells enough.
      message: `connection to ${endpoint} failed: ${
        reason ?? (seen.message ?? "").split("POST ")[0] ?? ""
      }`,
    });
  }

  #error(
    action: string,
    failure: { code: string; message: string; status?: number; requestId?: string },
  ): AliApiError {
    const { status = 0, code, message, requestId } = failure;
    const unknown = isWrite(action) && (status === 0 || status >= 500);
    const reaction: Reaction | undefined = status === 0
      ? { do: "retry", cause: "busy", budgetSeconds: 600 }
      : undefined;
    return new AliApiError(
      { action: `${this.#options.service}:${action}`, message, ...(reaction ? { reaction } : {}) },
      { status, code, outcomeUnknown: unknown, ...(requestId ? { requestId } : {}) },
    );
  }
}

class RefusedAnswerError extends Error {
  override name = "RefusedAnswerError";
}

/** `agent`, for one request that is shown to `onRequest` first: pop-core does not hand it out. */
function watchedAgent(
  agent: http.Agent,
  onRequest: (request: http.ClientRequest) => void,
): http.Agent {
  const base = agent as http.Agent & {
    addRequest(request: http.ClientRequest, ...rest: unknown[]): void;
  };
  return Object.create(base, {
    addRequest: {
      value(request: http.ClientRequest, ...rest: unknown[]) {
        onRequest(request);
        base.addRequest(request, ...rest);
      },
    },
  });
}

const ThrownSchema = v.object({
  name: v.optional(v.unknown()),
  message: v.optional(v.fallback(v.string(), "")),
  code: v.optional(v.unknown()),
  data: v.optional(v.fallback(
    v.object({
      Code: v.optional(v.unknown()),
      Message: v.optional(v.unknown()),
      RequestId: v.optional(v.unknown()),
    }),
    {},
  )),
  entry: v.optional(v.fallback(
    v.object({ response: v.object({ statusCode: v.number() }) }),
    { response: { statusCode: 0 } },
  )),
});

/** Reads are named `Describe…`, `List…` or `Get…` throughout. */
function isWrite(action: string): boolean {
  return !/^(Describe|List|Get)/.test(action);
}

/** pop-core sends `undefined` and `null` as those words, and needs plain values. */
function flatten(parameters: Parameters): Record<string, unknown> {
  const sent: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === null) continue;
    sent[name] = Array.isArray(value) ? value : String(value);
  }
  return sent;
}
