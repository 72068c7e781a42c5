/**
 * A connection to one member of etcd v3, over npm:etcd3 and its grpc-js. One file, since it has all
 * that depends on how these two work inside.
 *
 * @module
 */
import type {
  IAuthenticateRequest,
  IAuthenticateResponse,
  ILeaseGrantRequest,
  ILeaseGrantResponse,
  ILeaseKeepAliveResponse,
  ILeaseRevokeRequest,
  ILeaseRevokeResponse,
  ILeaseTimeToLiveRequest,
  ILeaseTimeToLiveResponse,
  IRangeRequest,
  IRangeResponse,
  ITxnRequest,
  ITxnResponse,
  IWatchCreateRequest,
  IWatchResponse,
} from "etcd3";
import { Buffer } from "node:buffer";
import { describeError } from "../../errors.ts";
import { deadline } from "../../util/time.ts";
import { EtcdError, fromGrpcError, portHint } from "./error.ts";
import type { Endpoint } from "../../net/mod.ts";
import { configKey, type EtcdSettings } from "./options.ts";
import { authorityOf, type MemberChannel, openChannel } from "./channel.ts";
import { repairHttp2 } from "./http2_workaround.ts";
import {
  CLOSED_BY_SERVER,
  describeConnectError,
  describeTlsError,
  NO_TLS,
  SPEAKS_TLS,
} from "./tls_errors.ts";
import { readTlsFiles } from "./tls_files.ts";
import { Http2RefusedError, requireTlsSockets, speaksTls } from "./tls_socket.ts";

/** The unary calls in use: service, request, response. */
export interface Methods {
  range: { service: "KV"; request: IRangeRequest; response: IRangeResponse };
  txn: { service: "KV"; request: ITxnRequest; response: ITxnResponse };
  leaseGrant: { service: "Lease"; request: ILeaseGrantRequest; response: ILeaseGrantResponse };
  leaseRevoke: { service: "Lease"; request: ILeaseRevokeRequest; response: ILeaseRevokeResponse };
  leaseTimeToLive: {
    service: "Lease";
    request: ILeaseTimeToLiveRequest;
    response: ILeaseTimeToLiveResponse;
  };
  authenticate: { service: "Auth"; request: IAuthenticateRequest; response: IAuthenticateResponse };
}

const SERVICES: { readonly [M in keyof Methods]: Methods[M]["service"] } = {
  range: "KV",
  txn: "KV",
  leaseGrant: "Lease",
  leaseRevoke: "Lease",
  leaseTimeToLive: "Lease",
  authenticate: "Auth",
};

/** Options of one request. */
export interface RequestOptions {
  readonly signal: AbortSignal;
  /** After this the request fails with kind `timeout`. */
  readonly timeoutMs: number;
}

/** A cluster's identity, and the revision of a linearizable read. */
export interface StorePosition {
  readonly clusterId: string;
  readonly revision: bigint;
}

/** The parts of grpc-js that are used here; etcd3 hands its objects out without exporting them. */
interface GrpcCall {
  cancel(): void;
}
interface GrpcDuplex extends GrpcCall, AsyncIterable<unknown> {
  write(message: unknown): void;
  on(event: "error", listener: (error: Error) => void): void;
}
interface GrpcMetadata {
  set(name: string, value: string): void;
  clone(): GrpcMetadata;
}
interface GrpcClient {
  [method: string]: unknown;
}
interface GrpcHost {
  getServiceClient(name: "KV" | "Lease" | "Auth" | "Watch"): GrpcClient;
}

/** Enough for a page of large foreign values. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/**
 * A connection to one member of etcd: one HTTP/2 session for all calls and watches, so that a call
 * which succeeds shows that the watches beside it are alive. It does not retry, fail over or
 * reconnect; a connection that failed is disposed and another one opened.
 */
export class EtcdConnection implements Disposable {
  readonly endpoint: Endpoint;
  readonly #settings: EtcdSettings;
  readonly #stack: DisposableStack;
  readonly #host: GrpcHost;
  readonly #emptyMetadata: GrpcMetadata;
  readonly #channel: MemberChannel;
  readonly #calls = new Set<GrpcCall>();
  #token: string | undefined;
  #authenticating: Promise<void> | undefined;
  #heardAt = performance.now();
  #serving = false;

  private constructor(
    endpoint: Endpoint,
    settings: EtcdSettings,
    stack: DisposableStack,
    parts: { readonly host: GrpcHost; readonly metadata: GrpcMetadata },
    channel: MemberChannel,
  ) {
    this.endpoint = endpoint;
    this.#settings = settings;
    this.#stack = stack;
    this.#host = parts.host;
    this.#emptyMetadata = parts.metadata;
    this.#channel = channel;
  }

  /**
   * Connects, authenticates, and makes sure by a linearizable read that the member serves.
   *
   * @throws {EtcdError} If it does not within `timeoutMs`, or refuses us.
   * @throws {OperatorError} If this build cannot use the endpoint at all.
   */
  static async open(
    endpoint: Endpoint,
    settings: EtcdSettings,
    options: RequestOptions,
  ): Promise<EtcdConnection> {
    await loadEtcd3(); // its time is not the member's
    const until = performance.now() + options.timeoutMs;
    using stack = new DisposableStack();
    const channel = stack.use(await openMember(endpoint, settings, options));
    const parts = await openHost(channel);
    const connection = new EtcdConnection(endpoint, settings, stack.move(), parts, channel);
    try {
      const timeoutMs = Math.max(1, until - performance.now());
      await connection.#authenticate({ signal: options.signal, timeoutMs });
      await connection.probe({
        signal: options.signal,
        timeoutMs: Math.max(1, until - performance.now()),
      });
      channel.settle();
      connection.#serving = true;
      return connection;
    } catch (error) {
      connection[Symbol.dispose]();
      if (!(error instanceof EtcdError)) throw error;
      if (
        !endpoint.secure && error.detail === CLOSED_BY_SERVER && await speaksTls(endpoint, options)
      ) {
        throw new EtcdError("unreachable", endpoint.url, SPEAKS_TLS);
      }
      throw error.kind === "timeout" || error.kind === "lost"
        ? new EtcdError("unreachable", endpoint.url, error.detail, { cause: error })
        : error;
    }
  }

  get disposed(): boolean {
    return this.#stack.disposed;
  }

  get silentMs(): number {
    return performance.now() - this.#heardAt;
  }

  /**
   * One request. With `hasleader` a member cut off from the others refuses at once instead of
   * keeping us waiting. A token that etcd no longer knows is replaced once.
   */
  async call<M extends keyof Methods>(
    method: M,
    request: Methods[M]["request"],
    options: RequestOptions,
  ): Promise<Methods[M]["response"]> {
    const until = performance.now() + options.timeoutMs;
    const token = this.#token;
    try {
      return await this.#unary(method, request, options);
    } catch (error) {
      if (!(error instanceof EtcdError) || error.kind !== "token") throw error;
      const rest = () => ({
        signal: options.signal,
        timeoutMs: Math.max(1, until - performance.now()),
      });
      await this.#reauthenticate(token, rest());
      return await this.#unary(method, request, rest());
    }
  }

  /** A cheap linearizable read. */
  async probe(options: RequestOptions): Promise<StorePosition> {
    const request = { key: Buffer.from(configKey(this.#settings.prefix)), keys_only: true };
    const { header } = await this.call("range", request, options);
    return { clusterId: header.cluster_id, revision: BigInt(header.revision) };
  }

  /** Prolongs an etcd lease once. Returns the seconds it has now, 0 if it does not exist. */
  async keepAlive(leaseId: string, options: RequestOptions): Promise<number> {
    const stream = this.#duplex("Lease", "leaseKeepAlive", options);
    try {
      stream.write({ ID: leaseId });
      for await (const response of this.#read<ILeaseKeepAliveResponse>(stream, options)) {
        return Number(response.TTL);
      }
      throw new EtcdError("lost", this.endpoint.url, "the server ended the call");
    } finally {
      this.#end(stream);
    }
  }

  /** Follows a key range; the caller ends it by leaving the loop. */
  async *watch(
    request: IWatchCreateRequest,
    options: { signal: AbortSignal },
  ): AsyncGenerator<IWatchResponse> {
    const stream = this.#duplex("Watch", "watch", options);
    try {
      stream.write({ create_request: request });
      yield* this.#read<IWatchResponse>(stream, options);
      throw new EtcdError("lost", this.endpoint.url, "the server ended the watch");
    } finally {
      this.#end(stream);
    }
  }

  /** Ends all calls and the session. */
  [Symbol.dispose](): void {
    for (const call of this.#calls) call.cancel();
    this.#calls.clear();
    this.#stack.dispose();
  }

  #metadata(): GrpcMetadata {
    const metadata = this.#emptyMetadata.clone();
    metadata.set("hasleader", "true");
    if (this.#token !== undefined) metadata.set("token", this.#token);
    return metadata;
  }

  #unary<M extends keyof Methods>(
    method: M,
    request: Methods[M]["request"],
    options: RequestOptions,
  ): Promise<Methods[M]["response"]> {
    const { signal, timeoutMs } = options;
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.disposed) return Promise.reject(this.#closed());
    const client = this.#host.getServiceClient(SERVICES[method]);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        call.cancel();
        reject(signal.reason);
      };
      const deadline = Date.now() + timeoutMs;
      const invoke = client[method] as (...args: unknown[]) => GrpcCall;
      const call = invoke.call(
        client,
        request,
        this.#metadata(),
        { deadline },
        (error: Error | null, response: Methods[M]["response"]) => {
          signal.removeEventListener("abort", onAbort);
          this.#calls.delete(call);
          if (error) return reject(this.#sortOut(error));
          this.#heardAt = performance.now();
          resolve(response);
        },
      );
      this.#calls.add(call);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  #duplex(
    service: "Lease" | "Watch",
    method: string,
    options: { signal: AbortSignal; timeoutMs?: number },
  ): GrpcDuplex {
    options.signal.throwIfAborted();
    if (this.disposed) throw this.#closed();
    const client = this.#host.getServiceClient(service);
    const deadline = options.timeoutMs === undefined ? {} : {
      deadline: Date.now() + options.timeoutMs,
    };
    const invoke = client[method] as (...args: unknown[]) => GrpcDuplex;
    const stream = invoke.call(client, this.#metadata(), deadline);
    // The reader gets the error; one that nobody reads must not be uncaught.
    stream.on("error", () => {});
    this.#calls.add(stream);
    return stream;
  }

  async *#read<T>(stream: GrpcDuplex, options: { signal: AbortSignal }): AsyncGenerator<T> {
    const { signal } = options;
    const onAbort = () => stream.cancel();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      for await (const message of stream) {
        this.#heardAt = performance.now();
        yield message as T;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw this.#sortOut(error);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #end(stream: GrpcDuplex): void {
    this.#calls.delete(stream);
    stream.cancel();
  }

  /** The error of a call. What TLS says of the end of a connection is closer to the cause. */
  #sortOut(error: unknown): EtcdError {
    const sorted = fromGrpcError(error, this.endpoint.url);
    const cause = this.#channel.failure;
    if (sorted.kind !== "lost" && sorted.kind !== "unreachable") return sorted;
    if (cause === undefined) {
      if (this.#serving || !this.#channel.secured || sorted.detail !== CLOSED_BY_SERVER) {
        return sorted;
      }
      // With TLS 1.3 a client certificate is refused after the handshake, and the end of the
      // connection may come before the reason.
      const which = this.#settings.tls.certFile === undefined ? "a" : "another";
      const detail = `${CLOSED_BY_SERVER}: does it want ${which} client certificate?`;
      return new EtcdError(sorted.kind, this.endpoint.url, detail);
    }
    if (cause instanceof Http2RefusedError) return notServed(this.endpoint, cause);
    const { tls: files } = this.#settings;
    const described = describeTlsError(cause, { endpoint: this.endpoint, files });
    const unsecured = described === CLOSED_BY_SERVER && !this.#channel.secured;
    const detail = unsecured ? NO_TLS : described;
    return new EtcdError(sorted.kind, this.endpoint.url, detail);
  }

  #closed(): EtcdError {
    return new EtcdError("unreachable", this.endpoint.url, "the connection was closed");
  }

  /** Gets a token. Without credentials, or where authentication is off, none is needed. */
  async #authenticate(options: RequestOptions): Promise<void> {
    const { credentials } = this.#settings;
    if (credentials === undefined) return;
    this.#token = undefined;
    try {
      const request = { name: credentials.username, password: credentials.password.reveal() };
      this.#token = (await this.#unary("authenticate", request, options)).token;
    } catch (error) {
      if (error instanceof EtcdError && /authentication is not enabled/.test(error.detail)) return;
      if (error instanceof EtcdError && error.kind === "denied") {
        const detail = `${error.detail} (user "${credentials.username}")`;
        throw new EtcdError("denied", this.endpoint.url, detail, { cause: error });
      }
      throw error;
    }
  }

  /** Replaces `staleToken`, once for all calls that met it. */
  async #reauthenticate(staleToken: string | undefined, options: RequestOptions): Promise<void> {
    if (this.#settings.credentials === undefined) {
      throw new EtcdError("denied", this.endpoint.url, "it demands a user name and password");
    }
    if (this.#authenticating === undefined && this.#token !== staleToken) return;
    this.#authenticating ??= this.#authenticate(options).finally(() => {
      this.#authenticating = undefined;
    });
    await this.#authenticating;
  }
}

/** etcd3, loaded when first asked for: 100 ms and 40 MB that another store need not pay. */
export function loadEtcd3(): Promise<typeof import("etcd3")> {
  repairHttp2();
  return import("etcd3");
}

function notServed(endpoint: Endpoint, cause?: Error): EtcdError {
  const detail = `the v3 API is not served there${portHint(endpoint.url)}`;
  return new EtcdError("not-served", endpoint.url, detail, { cause });
}

/** The way to a member, over TLS if it is to be so. */
async function openMember(
  endpoint: Endpoint,
  settings: EtcdSettings,
  options: RequestOptions,
): Promise<MemberChannel> {
  if (endpoint.secure || endpoint.path !== undefined) requireTlsSockets(endpoint);
  const grpcOptions = {
    "grpc.default_authority": authorityOf(endpoint),
    // etcd lies inside the network, where a proxy for the Internet does not lead; upstream's
    // client does not use one either. Without this, http_proxy would divert us.
    "grpc.enable_http_proxy": 0,
    "grpc.enable_retries": 0,
    "grpc.enable_channelz": 0, // statistics that nobody would read
    "grpc.service_config_disable_resolution": 1,
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    // A session of our own: the global pool would hand a new connection the old, silent one.
    "grpc.use_local_subchannel_pool": 1,
  };
  using limit = deadline(options.timeoutMs, options);
  try {
    const grpc = await import("@grpc/grpc-js");
    const material = endpoint.secure ? await readTlsFiles(settings.tls) : undefined;
    return await openChannel(grpc, endpoint, material, grpcOptions, limit);
  } catch (cause) {
    options.signal.throwIfAborted();
    const detail = limit.signal.aborted
      ? "the host name is not resolved in time"
      : describeConnectError(describeError(cause));
    throw new EtcdError("unreachable", endpoint.url, detail);
  }
}

/**
 * Makes etcd3's objects for one member. etcd3's own layers above them are not used: its retries,
 * circuit breaker and token cache would hide from us what was sent and what became of it.
 */
async function openHost(
  { channel }: MemberChannel,
): Promise<{ host: GrpcHost; metadata: GrpcMetadata }> {
  const { Etcd3 } = await loadEtcd3();
  class Member extends Etcd3 {
    parts(): Promise<{ host: GrpcHost; metadata: GrpcMetadata }> {
      return this.pool.withConnection("KV", ({ resource, metadata }) => ({
        host: resource as unknown as GrpcHost,
        metadata,
      }));
    }
  }
  // One channel, hence one session, for all services; what etcd3 knows of the host is not used.
  const grpcOptions: Record<string, unknown> = { channelOverride: channel };
  return await new Member({ hosts: channel.getTarget(), grpcOptions }).parts();
}
