/** Reads the instance's metadata. @module */
import { OperatorError } from "../../errors.ts";
import { forgetSecret, Secret } from "../../secret.ts";
import { Backoff } from "../../util/time.ts";
import { httpRequest } from "../http.ts";

/** Where every instance finds its metadata service. */
export const METADATA_ENDPOINT = "http://100.100.100.200";

export interface MetadataOptions {
  /** Base URL. @default {METADATA_ENDPOINT} */
  readonly endpoint?: string;
  /** Whether requests without a token may be tried where tokens do not work. @default {true} */
  readonly allowV1?: boolean;
  /** How long one {@linkcode Metadata.get} keeps trying. @default {12_000} */
  readonly patienceMs?: number;
  /** Of one exchange. @default {2_000} */
  readonly timeoutMs?: number;
  /** Milliseconds since the epoch. @default {Date.now} */
  readonly now?: () => number;
}

/** The metadata service gives no response, or none that helps. It may later. */
export class MetadataUnavailableError extends Error {
  override name = "MetadataUnavailableError";
}

const TOKEN_TTL_SECONDS = 21_600;

/**
 * The ECS metadata service, by the token protocol (hardened mode, "IMDSv2") first. Everything it
 * says is checked by the caller; values are trimmed.
 * See https://help.aliyun.com/zh/ecs/user-guide/view-instance-metadata
 */
export class Metadata {
  readonly #options: Required<MetadataOptions>;
  #token: { readonly secret: Secret; readonly staleAt: number } | undefined;
  /** The service has no tokens: do not ask for one each time. */
  #v1Only = false;

  constructor(options: MetadataOptions = {}) {
    this.#options = {
      endpoint: METADATA_ENDPOINT,
      allowV1: true,
      patienceMs: 12_000,
      timeoutMs: 2_000,
      now: Date.now,
      ...options,
    };
  }

  get endpoint(): string {
    return this.#options.endpoint;
  }

  /**
   * The value at `path` below `/latest/meta-data/`, `undefined` if there is none (404).
   *
   * @throws {MetadataUnavailableError} After `patienceMs` of silence, refusals or server errors.
   * @throws {OperatorError} If the service refuses this host.
   */
  async get(path: string, options: { signal: AbortSignal }): Promise<string | undefined> {
    const { endpoint, patienceMs, timeoutMs } = this.#options;
    const url = `${endpoint}/latest/meta-data/${path}`;
    const giveUpAt = performance.now() + patienceMs;
    const backoff = new Backoff({ initialMs: 300, maxMs: 2_000 });
    for (;;) {
      let trouble: string;
      try {
        const answer = await this.#request(url, options);
        if (answer.status === 200) return answer.text.trim();
        if (answer.status === 404) return undefined;
        if (answer.status === 403) {
          throw new OperatorError(
            this.#options.allowV1
              ? `Cannot read metadata at ${url}: access is forbidden; the service may be switched ` +
                "off for this instance, or something between adds X-Forwarded-For"
              : `Cannot read metadata at ${url}: access is forbidden`,
          );
        }
        trouble = `HTTP status ${answer.status}`;
        // Other refusals do not pass by themselves within seconds.
        if (answer.status !== 429 && answer.status < 500) {
          throw new MetadataUnavailableError(`Cannot read metadata at ${url}: ${trouble}`);
        }
      } catch (error) {
        options.signal.throwIfAborted();
        if (error instanceof OperatorError || error instanceof MetadataUnavailableError) {
          throw error;
        }
        trouble = error instanceof DOMException && error.name === "TimeoutError"
          ? "no answer"
          : error instanceof Error
          ? error.message
          : String(error);
      }
      // One try asks for a token and then for the value.
      if (performance.now() + 2 * timeoutMs > giveUpAt) {
        throw new MetadataUnavailableError(
          `Cannot read metadata at ${url}: ${trouble} within ${patienceMs / 1000} s; ` +
            "this host may be no ECS instance of a VPC (a classic-network one has none), or its " +
            "metadata service is switched off, or filtered, such as by rules or routes on this " +
            'host for 100.64.0.0/10 (Tailscale has some: see "iptables -S ts-input")',
        );
      }
      await backoff.wait(options);
    }
  }

  /** Like {@linkcode Metadata.get}; an absent or malformed value is an error that names the path. */
  async getMatching(
    path: string,
    pattern: RegExp,
    options: { signal: AbortSignal },
  ): Promise<string> {
    const value = await this.get(path, options);
    if (value !== undefined && pattern.test(value)) return value;
    throw new MetadataUnavailableError(
      `Cannot use metadata ${this.#options.endpoint}/latest/meta-data/${path}: ` +
        (value === undefined
          ? "it is absent"
          : `"${value.slice(0, 60)}" is not what belongs there`),
    );
  }

  async #request(url: string, options: { signal: AbortSignal }) {
    const { timeoutMs, allowV1 } = this.#options;
    const token = await this.#currentToken(options);
    const get = (secret: Secret | undefined) =>
      httpRequest(url, {
        ...options,
        timeoutMs,
        direct: true,
        ...(secret ? { headers: { "X-aliyun-ecs-metadata-token": secret.reveal() } } : {}),
      });
    if (token === undefined && !allowV1) {
      throw new Error("the service gives no token, and requests without one are not allowed");
    }
    const answer = await get(token);
    if (answer.status !== 401 || token === undefined) return answer;
    // The token ended early (the service restarted, the instance was moved): once more.
    this.#token = undefined;
    return await get(await this.#currentToken(options));
  }

  /** A token, or `undefined` if the service gives none. */
  async #currentToken(options: { signal: AbortSignal }): Promise<Secret | undefined> {
    const { endpoint, timeoutMs, now, allowV1 } = this.#options;
    if (this.#v1Only) return undefined;
    if (this.#token !== undefined && now() < this.#token.staleAt) return this.#token.secret;
    let answer;
    try {
      answer = await httpRequest(`${endpoint}/latest/api/token`, {
        ...options,
        timeoutMs,
        direct: true,
        method: "PUT",
        headers: { "X-aliyun-ecs-metadata-token-ttl-seconds": String(TOKEN_TTL_SECONDS) },
        body: "",
      });
    } catch (error) {
      options.signal.throwIfAborted();
      if (!allowV1) throw error;
      return undefined;
    }
    const text = answer.text.trim();
    if (answer.status === 200 && /^[\x21-\x7e]{1,1024}$/.test(text)) {
      const staleAt = now() + TOKEN_TTL_SECONDS * 1000 / 2;
      if (this.#token !== undefined) forgetSecret(this.#token.secret.reveal());
      this.#token = { secret: new Secret(text), staleAt };
      return this.#token.secret;
    }
    if (answer.status === 429 || answer.status >= 500) {
      throw new Error(`the token service returns HTTP status ${answer.status}`);
    }
    // Not found, not allowed: a service older than tokens.
    if (answer.status === 404 || answer.status === 405 || answer.status === 501) {
      this.#v1Only = allowV1;
    }
    return undefined;
  }
}
