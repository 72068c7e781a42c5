/**
 * A client of the Kubernetes API by fetch, over HTTP/1.1: a watch on a dead connection of HTTP/2 is
 * silent for ever, and so is whatever shares the connection. Each call has its own deadline.
 *
 * @module
 */
import { ConfigError, describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { forgetSecret, rememberSecret } from "../../secret.ts";
import { Backoff, deadline, delay } from "../../util/time.ts";
import { childSignal } from "../../util/child_signal.ts";
import { type CallOptions, isTransient } from "../errors.ts";
import { fetchReason } from "../fetch_reason.ts";
import { type Access, type AccessOptions, readAccess } from "./access.ts";
import { errorOfResponse, KubeError } from "./error.ts";

/** Metadata alone, without the spec and status that nobody looks at. */
export const METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/** The same of a list. */
export const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/** Content types of a write. */
const CONTENT_TYPES = {
  POST: "application/json",
  PUT: "application/json",
  DELETE: "application/json",
  // The only kind that adds to conditions instead of replacing them all.
  PATCH: "application/strategic-merge-patch+json",
} as const;

/** How long a request may take. The server itself gives up after a minute only. */
const DEADLINE_MS = 10_000;
/** How long what was read from files is taken for true. */
const REREAD_MS = 10_000;
/** How often a request is sent in all. */
const ATTEMPTS = 4;
/** A line of a watch beyond this is no object of ours. */
const LONGEST_LINE = 8 * 2 ** 20;

/** One request. */
export interface KubeRequest {
  /** For messages: `patch nodes/n1/status`. */
  readonly what: string;
  readonly method?: "GET" | keyof typeof CONTENT_TYPES;
  /** Below the server: `/api/v1/nodes`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  /** @default plain JSON */
  readonly accept?: string;
  readonly body?: unknown;
  /** @default {10_000} */
  readonly timeoutMs?: number;
}

/** Options of {@linkcode KubeClient.watch}. */
export interface WatchRequest extends KubeRequest {
  /** The stream ends, without an error, after so much silence. */
  readonly silenceMs: number;
}

/** A pool of connections with the certificates that it was made with. */
interface Pool {
  readonly http: Deno.HttpClient;
  readonly access: Access;
  users: number;
  isRetired: boolean;
}

/** Speaks to one API server. */
export class KubeClient implements Disposable {
  readonly #options: AccessOptions;
  readonly #log: Logger;
  #access: Access | undefined;
  #readAt = -Infinity;
  #pool: Pool | undefined;
  /** Between what the server's clock is ahead of ours, as its responses tell to a second. */
  #clockAhead = { minMs: -Infinity, maxMs: Infinity };
  /** Aborts streams whose connection is from an address that is gone. */
  #streams = new AbortController();

  private constructor(options: AccessOptions, log: Logger) {
    this.#options = options;
    this.#log = log;
  }

  /**
   * Makes a client. The server need not be up.
   *
   * @throws {ConfigError} If nothing usable says where the API is, and as whom to speak to it.
   */
  static async open(options: AccessOptions, log: Logger): Promise<KubeClient> {
    const client = new KubeClient(options, log);
    try {
      client.#poolFor(await client.#currentAccess());
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      throw new ConfigError("the Kubernetes API", [describeError(error)], { cause: error });
    }
    return client;
  }

  [Symbol.dispose](): void {
    this.#streams.abort(new Error("The client is closed"));
    this.#retirePool();
    if (this.#access?.token !== undefined) forgetSecret(this.#access.token);
  }

  get server(): string {
    return this.#access!.server;
  }

  /** Of the service account, or of the kubeconfig's context. */
  get namespace(): string | undefined {
    return this.#access!.namespace;
  }

  /** Milliseconds since the epoch by the server's clock; by ours where they may agree. */
  get serverNow(): number {
    const { minMs, maxMs } = this.#clockAhead;
    return Date.now() + Math.min(Math.max(0, minMs), maxMs);
  }

  /** The connections that are open are not used again. */
  addressesChanged(): void {
    this.#retirePool();
    this.#streams.abort(new Error("The addresses of this host have changed"));
    this.#streams = new AbortController();
  }

  /**
   * Sends a request, again where that is no harm, and returns the object of the response.
   *
   * @throws {KubeError}
   */
  async request(request: KubeRequest, { signal }: CallOptions): Promise<unknown> {
    const { what, timeoutMs = DEADLINE_MS } = request;
    using limit = deadline(timeoutMs, { signal });
    const backoff = new Backoff({ initialMs: 200, maxMs: 2_000 });
    const endsAt = performance.now() + timeoutMs;
    for (let attempt = 1, isRead = false;; attempt++) {
      try {
        return await this.#once(request, limit);
      } catch (error) {
        signal.throwIfAborted();
        if (limit.signal.aborted) {
          this.#retirePool();
          throw new KubeError(what, { message: `no response within ${timeoutMs / 1_000} s` });
        }
        if (!(error instanceof KubeError)) throw error;
        if (error.status === 401 && !isRead) {
          isRead = true;
          const before = this.#access?.token;
          this.#readAt = -Infinity;
          if ((await this.#currentAccess()).token !== before) continue;
        }
        const waitMs = jittered(error.retryAfterMs) ?? backoff.next();
        const mayRepeat = attempt < ATTEMPTS && isPassing(error, request) &&
          performance.now() + waitMs < endsAt;
        if (!mayRepeat) throw error;
        await delay(waitMs, limit).catch(() => {});
      }
    }
  }

  /**
   * Yields the objects of a stream of lines, those of one moment together, until it ends or has
   * been silent for too long. The first array is empty: the server has begun.
   *
   * @throws {KubeError}
   */
  async *watch(request: WatchRequest, options: CallOptions): AsyncGenerator<readonly unknown[]> {
    const { what, silenceMs } = request;
    using stream = childSignal(options.signal, this.#streams.signal);
    let isSilent = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const rearm = (milliseconds: number) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        isSilent = true;
        stream.abort(new DOMException("Nothing came for too long", "TimeoutError"));
      }, milliseconds);
    };
    rearm(DEADLINE_MS);
    let isOpen = false;
    try {
      using call = await this.#send(request, stream);
      isOpen = true;
      rearm(silenceMs);
      yield [];
      const decoder = new TextDecoder();
      let rest = "";
      for await (const chunk of call.response.body ?? []) {
        rearm(silenceMs);
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop()!;
        if (rest.length > LONGEST_LINE) {
          throw new KubeError(what, { message: "a line is too long" });
        }
        const objects = lines.filter((line) => line !== "").map((line) => parse(line, what));
        // While its reader is busy, nothing is late.
        clearTimeout(timer);
        if (objects.length > 0) yield objects;
        rearm(silenceMs);
      }
    } catch (error) {
      options.signal.throwIfAborted();
      if (isSilent && isOpen) return;
      if (error instanceof KubeError && !isSilent) throw error;
      this.#retirePool();
      const message = isSilent
        ? `no response within ${DEADLINE_MS / 1_000} s`
        : stream.signal.aborted
        ? describeError(stream.signal.reason)
        : describeFetchError(error);
      throw new KubeError(what, { message });
    } finally {
      clearTimeout(timer);
    }
  }

  async #once(request: KubeRequest, options: CallOptions): Promise<unknown> {
    const { what } = request;
    using call = await this.#send(request, options);
    let text: string;
    try {
      text = await call.response.text();
    } catch (error) {
      options.signal.throwIfAborted();
      throw this.#broken(what, error);
    }
    return parse(text, what);
  }

  /** The response, once it has begun well. */
  async #send(
    request: KubeRequest,
    { signal }: CallOptions,
  ): Promise<{ readonly response: Response } & Disposable> {
    const { what, method = "GET", path, query = {}, accept, body } = request;
    const access = await this.#currentAccess();
    let pool: Pool;
    try {
      pool = this.#poolFor(access);
    } catch (cause) {
      // A certificate that was replaced before its key; the next look may find both.
      throw new KubeError(what, { message: describeError(cause), code: "certificates" });
    }
    const search = new URLSearchParams(
      Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== undefined),
    );
    pool.users++;
    const sentAt = Date.now();
    const release = () => {
      pool.users--;
      if (pool.isRetired && pool.users === 0) pool.http.close();
    };
    try {
      const response = await fetch(
        `${access.server}${path}${search.size > 0 ? `?${search}` : ""}`,
        {
          method,
          client: pool.http,
          redirect: "manual", // nobody else is to see the token
          signal,
          headers: {
            accept: accept === undefined ? "application/json" : `${accept},application/json`,
            "user-agent": "flanneld",
            ...(access.token === undefined ? {} : { authorization: `Bearer ${access.token}` }),
            ...(method === "GET" || body === undefined
              ? {}
              : { "content-type": CONTENT_TYPES[method] }),
          },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        },
      ).catch((error: unknown) => {
        signal.throwIfAborted();
        throw this.#broken(what, error);
      });
      this.#noteClock(response.headers.get("date"), sentAt);
      if (!response.ok) {
        const text = await response.text().catch(() => "");
        throw errorOfResponse(what, response.status, text, response.headers.get("retry-after"));
      }
      return { response, [Symbol.dispose]: release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** The error of a connection; the next request makes a new one, with certificates read anew. */
  #broken(what: string, error: unknown): KubeError {
    this.#retirePool();
    this.#readAt = -Infinity;
    return new KubeError(what, { message: describeFetchError(error), code: "connection" });
  }

  /** What the files say; what they said before if they cannot be read. */
  async #currentAccess(): Promise<Access> {
    const former = this.#access;
    if (former !== undefined && performance.now() - this.#readAt < REREAD_MS) return former;
    this.#readAt = performance.now();
    try {
      const access = await readAccess(this.#options);
      if (access.token !== former?.token) {
        if (access.token !== undefined) rememberSecret(access.token);
        if (former?.token !== undefined) forgetSecret(former.token);
      }
      return this.#access = access;
    } catch (error) {
      if (former === undefined) throw error;
      this.#log.debug(describeError(error, "Cannot read the access to Kubernetes again"));
      return former;
    }
  }

  #poolFor(access: Access): Pool {
    const pool = this.#pool;
    if (pool !== undefined && sameCertificates(pool.access, access)) return pool;
    this.#retirePool();
    return this.#pool = { http: openPool(access), access, users: 0, isRetired: false };
  }

  #retirePool(): void {
    const pool = this.#pool;
    if (pool === undefined) return;
    this.#pool = undefined;
    pool.isRetired = true;
    if (pool.users === 0) pool.http.close();
  }

  #noteClock(date: string | null, sentAt: number): void {
    const serverMs = Date.parse(date ?? "");
    if (Number.isNaN(serverMs)) return;
    const before = this.#clockAhead;
    const now = { minMs: serverMs - Date.now(), maxMs: serverMs + 1_000 - sentAt };
    const both = {
      minMs: Math.max(before.minMs, now.minMs),
      maxMs: Math.min(before.maxMs, now.maxMs),
    };
    // What cannot be true together: one of the clocks was set.
    this.#clockAhead = both.minMs <= both.maxMs ? both : now;
  }
}

function openPool({ ca, certificate, key, proxy }: Access): Deno.HttpClient {
  try {
    return Deno.createHttpClient({
      http2: false,
      poolIdleTimeout: 30_000,
      ...(ca === undefined ? {} : { caCerts: [ca] }),
      ...(certificate === undefined ? {} : { cert: certificate, key: key! }),
      ...(proxy === undefined ? {} : { proxy: { url: proxy } }),
    });
  } catch (cause) {
    const text = describeError(cause);
    const reason = /UnsupportedCertVersion/.test(text)
      ? "the client certificate is of X.509 version 1: issue one of version 3, " +
        "with openssl x509 -extfile"
      : `the certificates cannot be used: ${text}`;
    throw new ConfigError("the Kubernetes API", [reason], { cause });
  }
}

function sameCertificates(a: Access, b: Access): boolean {
  return (["server", "proxy", "ca", "certificate", "key"] as const)
    .every((name) => a[name] === b[name]);
}

/** Whether the same request may do better in a moment, and may be sent again. */
function isPassing(error: KubeError, { method = "GET" }: KubeRequest): boolean {
  if (error.status === 429 || error.status === 503) return true; // it was not looked at
  if (!isTransient(error) || error.status === 409 || error.isExpired) return false;
  if (error.isFromFuture) return false;
  // Reads, and patches that say what shall be, may run twice.
  return method === "GET" || method === "PATCH";
}

/** Somewhat more than what the server asks for, so that not all come back at once. */
function jittered(milliseconds: number | undefined): number | undefined {
  return milliseconds === undefined ? undefined : milliseconds * (1 + Math.random() / 2) + 20;
}

/** `Connection refused (os error 111)`, without what led to it. */
function describeFetchError(error: unknown): string {
  return fetchReason(describeError(error)).replace(/(?:tcp connect error: )+/, "");
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new KubeError(what, { message: "the response is not JSON", code: "not-json" });
  }
}
