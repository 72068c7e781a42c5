/**
 * Requests to the v2 keys API over HTTP: fails over between members, within one deadline.
 *
 * @module
 */
import * as v from "valibot";
import { describeError } from "../../errors.ts";
import { childSignal } from "../../util/child_signal.ts";
import { deadline } from "../../util/time.ts";
import { FAILOVER_MS, LAST_REQUEST_MS, type Repeats } from "./client.ts";
import { EtcdError, type EtcdErrorKind, joinFailures, portHint } from "./error.ts";
import type { Endpoint } from "../../net/mod.ts";
import type { EtcdSettings, TlsFiles } from "./options.ts";
import type { CallOptions } from "../errors.ts";
import { fetchReason } from "../fetch_reason.ts";
import { HttpsClient } from "./https_fetch.ts";
import { CLOSED_BY_SERVER, describeTlsError, SPEAKS_TLS } from "./tls_errors.ts";
import { readTlsFiles, sameTlsMaterial, type TlsMaterial } from "./tls_files.ts";
import { hasTlsSockets, speaksTls } from "./tls_socket.ts";

/** A key or directory of the v2 API. */
export interface Node {
  readonly key: string;
  readonly dir?: boolean | undefined;
  readonly value?: string | undefined;
  /** Present if it ends by itself. */
  readonly expiration?: string | undefined;
  /** Seconds left. */
  readonly ttl?: number | undefined;
  readonly modifiedIndex: number;
  readonly createdIndex: number;
  readonly nodes?: readonly Node[] | undefined;
}

const NodeSchema: v.GenericSchema<unknown, Node> = v.object({
  // The root of the tree comes without a name and indexes.
  key: v.optional(v.string(), "/"),
  dir: v.optional(v.boolean()),
  value: v.optional(v.string()),
  expiration: v.optional(v.string()),
  ttl: v.optional(v.number()),
  modifiedIndex: v.optional(v.number(), 0),
  createdIndex: v.optional(v.number(), 0),
  nodes: v.optional(v.array(v.lazy(() => NodeSchema))),
});

const ResultSchema = v.object({
  action: v.string(),
  node: NodeSchema,
  prevNode: v.optional(NodeSchema),
});

const FailureSchema = v.object({
  errorCode: v.optional(v.number()),
  message: v.string(),
  cause: v.optional(v.string()),
});

/** What a successful request or a long poll returns. */
export type Result = v.InferOutput<typeof ResultSchema>;

export interface Reply {
  /** `undefined` if the key is absent, or the comparison did not hold. */
  readonly result: Result | undefined;
  /** The store's index at the time of the reply. */
  readonly index: number;
  readonly clusterId: string;
}

/** A request of the v2 keys API. */
export interface V2Request {
  readonly method: "GET" | "PUT" | "DELETE";
  /** The key, not yet percent-encoded. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly form?: Readonly<Record<string, string>>;
}

// https://etcd.io/docs/v2.3/errorcode/
const KEY_NOT_FOUND = 100;
const COMPARE_FAILED = 101;
const NOT_A_DIRECTORY = 104;
const NODE_EXISTS = 105;
const UNAUTHORIZED = 110;
const EVENT_INDEX_CLEARED = 401;

/**
 * A cluster of etcd by its v2 API; like `EtcdClient` it keeps to a member while that works, and
 * asks each once. Requests in clear text take the proxy of `http_proxy` unless `no_proxy` excludes
 * the member, as upstream's client did; `fetch` leaves no other choice.
 */
export class EtcdV2Client implements Disposable {
  readonly settings: EtcdSettings;
  readonly #lifetime = new AbortController();
  /** Ends what waits on connections from addresses that this host no longer has. */
  #addresses = new AbortController();
  #current: number;
  /** By the member's URL. */
  readonly #clients = new Map<string, MemberClient>();

  constructor(settings: EtcdSettings) {
    this.settings = settings;
    this.#current = Math.floor(Math.random() * settings.endpoints.length);
  }

  /**
   * Sends `request`. No member may take longer than `timeoutMs`.
   *
   * @throws {StoreError} When no member could carry it out.
   */
  async send(
    repeats: Repeats,
    request: V2Request,
    options: CallOptions & { readonly timeoutMs?: number },
  ): Promise<Reply> {
    const { timeoutMs = LAST_REQUEST_MS } = options;
    const isIdempotent = repeats === "idempotent";
    const failures: EtcdError[] = [];
    let attempts = this.settings.endpoints.length;
    for (let attempt = 1; attempt <= attempts; attempt++) {
      const last = attempt === attempts || !isIdempotent;
      const member = this.#current;
      const addresses = this.#addresses;
      try {
        return await this.#ask(this.settings.endpoints[member]!, request, {
          signal: options.signal,
          timeoutMs: last ? timeoutMs : Math.min(timeoutMs, FAILOVER_MS),
        });
      } catch (error) {
        if (!(error instanceof EtcdError) || !error.isPassing) throw error;
        if (addresses !== this.#addresses) attempts++; // which says nothing of the member
        else this.#leave(member);
        if (error.mayHaveRun && !isIdempotent) throw error;
        failures.push(error);
      }
    }
    throw joinFailures(failures);
  }

  /**
   * Waits for the first event at `index` or later, for at most `waitMs`. Without one the reply has
   * no result, and its index is the store's when the wait began.
   *
   * @throws {EtcdError} With kind `compacted` if the store no longer knows events so old.
   */
  async poll(
    request: { readonly path: string; readonly index: number; readonly recursive: boolean },
    options: CallOptions & { readonly waitMs: number },
  ): Promise<Reply> {
    const member = this.#current;
    const { path, index, recursive } = request;
    const query = { wait: "true", waitIndex: String(index), recursive: String(recursive) };
    try {
      return await this.#ask(this.settings.endpoints[member]!, { method: "GET", path, query }, {
        signal: options.signal,
        timeoutMs: FAILOVER_MS,
        waitMs: options.waitMs,
      });
    } catch (error) {
      if (error instanceof EtcdError && error.isPassing) this.#leave(member);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#lifetime.abort(new DOMException("The store was closed", "AbortError"));
    this.addressesChanged();
  }

  /** Closes all connections; a request that waits fails, and may be sent again. */
  addressesChanged(): void {
    this.#addresses.abort(new Error("the addresses of this host have changed"));
    this.#addresses = new AbortController();
    for (const client of this.#clients.values()) client[Symbol.dispose]();
    this.#clients.clear();
  }

  /** Goes on to the member after `member`, unless another call has done so. */
  #leave(member: number): void {
    if (this.#current === member) this.#current = (member + 1) % this.settings.endpoints.length;
  }

  /** Asks one member. The headers have to come within `timeoutMs`, the body `waitMs` later. */
  async #ask(
    endpoint: Endpoint,
    request: V2Request,
    options: {
      readonly signal: AbortSignal;
      readonly timeoutMs: number;
      readonly waitMs?: number;
    },
  ): Promise<Reply> {
    const signal = AbortSignal.any([options.signal, this.#lifetime.signal]);
    signal.throwIfAborted();
    const long = options.waitMs !== undefined;
    const ended = (cause: unknown, limit: AbortSignal): EtcdError => {
      signal.throwIfAborted();
      if (limit.aborted) return new EtcdError("timeout", endpoint.url, "no answer in time");
      return connectionError(cause, endpoint, this.settings.tls);
    };

    let response: Response;
    using head = deadline(options.timeoutMs, { signal });
    using body = deadline(options.timeoutMs + (options.waitMs ?? 0), { signal });
    using either = childSignal(body.signal, this.#addresses.signal);
    const onHead = () => either.abort(head.signal.reason);
    head.signal.addEventListener("abort", onHead);
    try {
      const client = await this.#client(endpoint);
      response = await client.fetch(this.#url(endpoint, request), {
        method: request.method,
        headers: this.#headers(),
        signal: either.signal,
        ...(request.form === undefined ? {} : { body: new URLSearchParams(request.form) }),
      });
    } catch (cause) {
      const error = ended(cause, head.signal);
      const closed = !endpoint.secure && error.detail === CLOSED_BY_SERVER;
      if (!closed || !await speaksTls(endpoint, { signal })) throw error;
      throw new EtcdError("unreachable", endpoint.url, SPEAKS_TLS);
    }
    head.signal.removeEventListener("abort", onHead);

    const index = Number(response.headers.get("X-Etcd-Index") ?? 0);
    const clusterId = response.headers.get("X-Etcd-Cluster-Id") ?? "";
    let text: string;
    try {
      text = await response.text();
    } catch (cause) {
      signal.throwIfAborted();
      if (long && body.signal.aborted) return { result: undefined, index, clusterId };
      throw ended(cause, body.signal);
    }
    // What a member sends that stops in order. Another store may be in its place next time.
    if (long && text === "") {
      throw new EtcdError("lost", endpoint.url, "the server ended the watch");
    }
    const result = parseResult(request.method, response, text, endpoint);
    return { result, index, clusterId };
  }

  #url(endpoint: Endpoint, request: V2Request): string {
    const path = request.path.split("/").map(encodeURIComponent).join("/");
    const query = new URLSearchParams(request.query).toString();
    const origin = endpoint.path === undefined ? endpoint.url : `http://${endpoint.hostname}`;
    return `${origin}/v2/keys${path}${query === "" ? "" : `?${query}`}`;
  }

  #headers(): Record<string, string> {
    const { credentials } = this.settings;
    if (credentials === undefined) return {};
    const text = `${credentials.username}:${credentials.password.reveal()}`;
    return { Authorization: `Basic ${new TextEncoder().encode(text).toBase64()}` };
  }

  /** A client with the TLS files as they are now; the same one while they are the same. */
  async #client(endpoint: Endpoint): Promise<MemberClient> {
    let material: TlsMaterial = NO_TLS_FILES;
    try {
      if (endpoint.secure) material = await readTlsFiles(this.settings.tls);
    } catch (cause) {
      throw new EtcdError("unreachable", endpoint.url, describeError(cause), { cause });
    }
    this.#lifetime.signal.throwIfAborted();
    const former = this.#clients.get(endpoint.url);
    if (former !== undefined && sameTlsMaterial(former.material, material)) return former;
    former?.[Symbol.dispose]();
    const client = endpoint.secure && hasTlsSockets()
      ? new HttpsClient(endpoint, material)
      : new FetchClient(endpoint, material);
    this.#clients.set(endpoint.url, client);
    return client;
  }
}

const NO_TLS_FILES: TlsMaterial = { ca: undefined, cert: undefined, key: undefined };

/** What makes requests to one member. */
interface MemberClient extends Pick<HttpsClient, "fetch" | "material">, Disposable {}

/**
 * Requests in clear text, and TLS before Deno 2.9, where `node:https` leaks connections: the given
 * CA adds to Deno's roots. A redirect is a response, too: where it leads is not for etcd to say.
 */
class FetchClient implements MemberClient {
  readonly material: TlsMaterial;
  readonly #client: Deno.HttpClient;

  constructor({ path }: Endpoint, material: TlsMaterial) {
    this.material = material;
    const { ca, cert, key } = material;
    this.#client = Deno.createHttpClient({
      ...(path === undefined ? {} : { proxy: { transport: "unix", path } }),
      ...(ca === undefined ? {} : { caCerts: [ca] }),
      ...(cert === undefined || key === undefined ? {} : { cert, key }),
    });
  }

  fetch: HttpsClient["fetch"] = (url, request) =>
    fetch(url, { ...request, redirect: "manual", client: this.#client });

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

/** Why there was no reply. What failed before anything was sent had no effect. */
function connectionError(cause: unknown, endpoint: Endpoint, files: TlsFiles): EtcdError {
  if (cause instanceof EtcdError) return cause;
  const text = describeError(cause);
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const unsent =
    /client error \(Connect\)|tcp connect error|dns error|failed to lookup/i.test(text) ||
    /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_|SELF_|DEPTH_|ECONNREFUSED|EHOST|ENET|ENOTFOUND|EAI_)/
      .test(code);
  const reason = fetchReason(text);
  const error = reason === text ? cause : new Error(reason || text);
  const detail = describeTlsError(error, { endpoint, files });
  return new EtcdError(unsent ? "unreachable" : "lost", endpoint.url, detail);
}

function parseResult(
  method: V2Request["method"],
  response: Response,
  text: string,
  endpoint: Endpoint,
): Result | undefined {
  const { status } = response;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch { /* not of this API */ }
  if (status >= 200 && status < 300) {
    const result = v.safeParse(ResultSchema, json);
    if (result.success) return result.output;
    throw notEtcd(response, text, endpoint);
  }
  const parsed = v.safeParse(FailureSchema, json);
  if (!parsed.success) throw notEtcd(response, text, endpoint, method);
  const failure = parsed.output;
  const what = [failure.message, failure.cause].filter(Boolean).join(": ");
  switch (failure.errorCode) {
    case KEY_NOT_FOUND:
    case COMPARE_FAILED:
    case NODE_EXISTS:
      return undefined;
    case NOT_A_DIRECTORY: // a key in place of the directory: nothing is below it
      if (method === "GET") return undefined;
      break;
    case EVENT_INDEX_CLEARED:
      throw new EtcdError("compacted", endpoint.url, what);
    case UNAUTHORIZED:
      throw new EtcdError("denied", endpoint.url, "wrong user or password, or no permission");
  }
  if (status === 401 || status === 403) {
    throw new EtcdError("denied", endpoint.url, "wrong user or password, or no permission");
  }
  // A write that ended so may still be carried out: etcd gave up waiting, not the cluster.
  throw new EtcdError(status >= 500 ? "timeout" : "refused", endpoint.url, what);
}

/** What to make of a response that is not of the v2 keys API: who sent it, and in which words. */
function notEtcd(
  response: Response,
  text: string,
  endpoint: Endpoint,
  method?: V2Request["method"],
): EtcdError {
  const { status } = response;
  const server = response.headers.get("server");
  const said = `HTTP status ${status}${server === null ? "" : ` of ${shorten(server)}`}` +
    (shorten(text) === "" ? "" : `, "${shorten(text)}"`);
  const fail = (kind: EtcdErrorKind, detail: string) =>
    new EtcdError(kind, endpoint.url, `${detail} (${said})`);
  if (/HTTP request to an HTTPS server/i.test(text)) {
    return fail("unreachable", SPEAKS_TLS);
  }
  if (status >= 300 && status < 400) {
    const to = URL.parse(response.headers.get("location") ?? "", endpoint.url)?.origin ?? "nowhere";
    return fail("not-served", `it redirects to ${to}: name etcd's own members`);
  }
  switch (status) {
    case 401:
    case 403:
      return fail("denied", "wrong user or password, or no permission");
    case 404:
      return fail("not-served", `the v2 API is not served there${portHint(endpoint.url)}`);
    case 405:
    case 501:
      return fail(
        "not-served",
        method === "GET"
          ? `the v2 API is not served there${portHint(endpoint.url)}`
          : "it refuses to write, as a read-only proxy does: name etcd's own members",
      );
  }
  if (status >= 500) return fail("timeout", "etcd is not behind it at present");
  return fail("not-served", `what answers there is not etcd's v2 API${portHint(endpoint.url)}`);
}

/** The words of a response, without tags, on one short line. */
function shorten(text: string): string {
  const words = text.slice(0, 4_000)
    .replaceAll(/<(script|style)[^]*?<\/\1>/gi, " ")
    .replaceAll(/<[^>]*>/g, " ")
    .replaceAll(/[^\x20-\x7e]+/g, " ")
    .replaceAll(/\s+/g, " ")
    .trim();
  return words.length > 100 ? `${words.slice(0, 100)}…` : words;
}
