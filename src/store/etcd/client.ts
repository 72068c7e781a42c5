/**
 * Requests to etcd v3 over any number of members: fails over between them, within one deadline.
 *
 * @module
 */
import type { Logger } from "../../log.ts";
import { abortable } from "../../util/abortable.ts";
import { EtcdConnection, type Methods } from "./connection.ts";
import { EtcdError, joinFailures } from "./error.ts";
import type { EtcdSettings } from "./options.ts";
import type { CallOptions } from "../errors.ts";

/** How long a member may take while there is another one to ask. */
export const FAILOVER_MS = 2_500;
/** How long the last member to be asked may take: etcd may be slow, and there is no better one. */
const LAST_CONNECT_MS = 5_000;
export const LAST_REQUEST_MS = 10_000;

/**
 * Whether a request is repeated at the next member whatever went wrong, or only if it certainly had
 * no effect.
 */
export type Repeats = "idempotent" | "once";

/**
 * A cluster of etcd: one connection at a time, kept while it works. A call that meets a member
 * which is down, silent or without leader goes on to the next one; each is asked once.
 */
export class EtcdClient implements Disposable {
  readonly settings: EtcdSettings;
  readonly #log: Logger;
  readonly #lifetime = new AbortController();
  #next: number;
  #current: EtcdConnection | undefined;
  #opening: Promise<EtcdConnection> | undefined;

  /** Starts at a random member, so that many hosts spread over the cluster. */
  constructor(settings: EtcdSettings, options: { random?: () => number } = {}) {
    this.settings = settings;
    this.#log = settings.log;
    const random = options.random ?? Math.random;
    this.#next = Math.floor(random() * settings.endpoints.length);
  }

  /** @throws {StoreError} When no member could carry it out. */
  call<M extends keyof Methods>(
    repeats: Repeats,
    method: M,
    request: Methods[M]["request"],
    options: CallOptions,
  ): Promise<Methods[M]["response"]> {
    return this.run(repeats, (connection, timeoutMs) => {
      return connection.call(method, request, { signal: options.signal, timeoutMs });
    }, options);
  }

  /** Like {@linkcode EtcdClient.call}, for anything that can be asked of a connection. */
  async run<T>(
    repeats: Repeats,
    ask: (connection: EtcdConnection, timeoutMs: number) => Promise<T>,
    options: CallOptions,
  ): Promise<T> {
    const isIdempotent = repeats === "idempotent";
    const failures: EtcdError[] = [];
    // A connection from before may have died since: that says nothing of its member yet.
    const extra = this.#current === undefined ? 0 : 1;
    const attempts = this.settings.endpoints.length + extra;
    for (let attempt = 1; attempt <= attempts; attempt++) {
      const last = attempt === attempts;
      let connection: EtcdConnection | undefined;
      try {
        connection = await this.#connection(last, options);
        return await ask(connection, last || !isIdempotent ? LAST_REQUEST_MS : FAILOVER_MS);
      } catch (error) {
        options.signal.throwIfAborted();
        if (!(error instanceof EtcdError) || !error.isPassing) throw error;
        if (connection !== undefined) this.release(connection, error);
        if (error.mayHaveRun && connection !== undefined && !isIdempotent) throw error;
        failures.push(error);
      }
    }
    throw joinFailures(failures);
  }

  /** A connection that works, to whichever member. @throws {StoreError} If there is none. */
  connect(options: CallOptions): Promise<EtcdConnection> {
    return this.run("idempotent", (connection) => Promise.resolve(connection), options);
  }

  /** Gives a connection up for `error`: the next call goes to the next member. */
  release(connection: EtcdConnection, error: EtcdError): void {
    if (this.#current === connection) {
      this.#current = undefined;
      this.#advance();
      this.#log.debug("left etcd member", { endpoint: connection.endpoint.url, why: error.detail });
    }
    connection[Symbol.dispose]();
  }

  /**
   * Leaves the present connection, which may be from an address that this host no longer has. A
   * request that waits on it is sent again as if it had been lost.
   */
  reconnect(): void {
    const connection = this.#current;
    this.#current = undefined;
    connection?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#lifetime.abort(new DOMException("The store was closed", "AbortError"));
    this.#current?.[Symbol.dispose]();
    this.#current = undefined;
  }

  /** The current connection, or one to the next member; opened once for all who wait. */
  async #connection(last: boolean, options: CallOptions): Promise<EtcdConnection> {
    const { signal } = options;
    signal.throwIfAborted();
    this.#lifetime.signal.throwIfAborted();
    if (this.#current !== undefined && !this.#current.disposed) return this.#current;
    this.#opening ??= this.#open(last ? LAST_CONNECT_MS : FAILOVER_MS);
    return await abortable(this.#opening, { signal });
  }

  async #open(timeoutMs: number): Promise<EtcdConnection> {
    const endpoint = this.settings.endpoints[this.#next % this.settings.endpoints.length]!;
    try {
      const { signal } = this.#lifetime;
      const connection = await EtcdConnection.open(endpoint, this.settings, { signal, timeoutMs });
      this.#current = connection;
      this.#log.debug("connected to etcd member", { endpoint: endpoint.url });
      return connection;
    } catch (error) {
      if (error instanceof EtcdError && error.isPassing) this.#advance();
      throw error;
    } finally {
      this.#opening = undefined;
    }
  }

  #advance(): void {
    this.#next = (this.#next + 1) % this.settings.endpoints.length;
  }
}
