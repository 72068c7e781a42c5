/**
 * A listener for short requests that cannot be exhausted: a bounded number of connections, each for
 * a bounded time, one request each. Neither `Deno.serve` nor Deno's `node:http` bounds both on every
 * version that we run on.
 *
 * @module
 */
import { delay } from "../util/time.ts";
import { writeAll } from "../util/write_all.ts";
import { headLength, type HealthRequest, MAX_HEAD_BYTES, parseRequest } from "./request.ts";

/** What a request gets. */
export interface HealthResponse {
  readonly status: number;
  readonly type: "text/plain; charset=utf-8" | "application/json";
  readonly body: string;
}

/** The two ends of a connection. */
export interface HealthPeer {
  /** The client's IP address. */
  readonly remote: string;
  /** The IP address that it came to. */
  readonly local: string;
}

export interface ListenOptions {
  readonly hostname: string;
  readonly port: number;
  /** Returns the response; may throw, which is a 500. */
  readonly respond: (request: HealthRequest, peer: HealthPeer) => HealthResponse;
  /** Closes the listener and every connection. */
  readonly signal: AbortSignal;
  /**
   * Connections at a time. One more ends the oldest, so that clients that do nothing never keep
   * out one that does. @default {32}
   */
  readonly maxConnections?: number;
  /** How long a connection may take for everything. @default {5_000} */
  readonly connectionMs?: number;
}

/** A listener that runs until its signal aborts. */
export interface RequestListener {
  readonly port: number;
  /** Resolves when it is closed and every connection has gone; never rejects. */
  readonly finished: Promise<void>;
}

/** Pause after a connection could not be accepted, as without descriptors. */
const ACCEPT_PAUSE_MS = 100;
/** How long and how much a client may go on sending after its response: closing would reset it. */
const LINGER_MS = 500;
const LINGER_BYTES = 65_536;

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

/**
 * Listens, and goes on listening whatever clients do and whatever the system runs short of.
 *
 * @throws What `Deno.listen` throws where the address cannot be bound.
 */
export function listenForRequests(options: ListenOptions): RequestListener {
  const { hostname, port, signal } = options;
  signal.throwIfAborted();
  const listener = new BoundedListener(Deno.listen({ hostname, port }), options);
  return { port: listener.port, finished: listener.run() };
}

class BoundedListener {
  readonly port: number;
  readonly #options: Required<ListenOptions>;
  readonly #listener: Deno.TcpListener;
  /** In the order in which they came. */
  readonly #open = new Set<Deno.TcpConn>();
  readonly #serving = new Set<Promise<void>>();
  /** Buffers for the next connections, which spare the garbage collector. */
  readonly #buffers: Uint8Array[] = [];

  constructor(listener: Deno.TcpListener, options: ListenOptions) {
    this.port = listener.addr.port;
    this.#listener = listener;
    this.#options = { maxConnections: 32, connectionMs: 5_000, ...options };
  }

  async run(): Promise<void> {
    const { signal } = this.#options;
    const close = () => {
      closeQuietly(this.#listener);
      for (const connection of this.#open) closeQuietly(connection);
    };
    signal.addEventListener("abort", close, { once: true });
    if (signal.aborted) close();
    while (!signal.aborted) {
      try {
        this.#take(await this.#listener.accept());
      } catch {
        if (signal.aborted) break;
        // Without descriptors the listener lives on. One of ours may be what is missing.
        this.#endOldest();
        await delay(ACCEPT_PAUSE_MS, { signal }).catch(() => {/* the loop sees it */});
      }
    }
    close(); // also a connection that came in that very moment
    await Promise.all(this.#serving);
  }

  #take(connection: Deno.TcpConn): void {
    if (this.#open.size >= this.#options.maxConnections) this.#endOldest();
    this.#open.add(connection);
    const serving = this.#serve(connection).finally(() => this.#serving.delete(serving));
    this.#serving.add(serving);
  }

  #endOldest(): void {
    for (const connection of this.#open) {
      this.#open.delete(connection);
      closeQuietly(connection);
      return;
    }
  }

  /** One request and its response; never rejects. */
  async #serve(connection: Deno.TcpConn): Promise<void> {
    // Closing a connection is what ends its pending reads and writes.
    const timer = setTimeout(() => closeQuietly(connection), this.#options.connectionMs);
    const buffer = this.#buffers.pop() ?? new Uint8Array(MAX_HEAD_BYTES);
    try {
      await writeAll(connection, this.#response(await readHead(connection, buffer), connection));
      await connection.closeWrite();
      await linger(connection, buffer);
    } catch {
      // The client has gone, or its time is over.
    } finally {
      clearTimeout(timer);
      this.#open.delete(connection);
      closeQuietly(connection);
      if (this.#buffers.length < this.#options.maxConnections) this.#buffers.push(buffer);
    }
  }

  #response(head: Uint8Array | undefined, connection: Deno.TcpConn): Uint8Array {
    if (head === undefined) return encode(plain(431, "the request's head is too long"));
    const request = parseRequest(head);
    if (!request) return encode(plain(400, "this is no HTTP/1 request"));
    const peer = { remote: connection.remoteAddr.hostname, local: connection.localAddr.hostname };
    let response: HealthResponse;
    try {
      response = this.#options.respond(request, peer);
    } catch {
      response = plain(500, "flanneld cannot tell its state");
    }
    return encode(response, { bodyless: request.method === "HEAD" });
  }
}

/** A response of plain text. */
export function plain(status: number, body: string): HealthResponse {
  return { status, type: "text/plain; charset=utf-8", body };
}

/** The head of a request, its empty line included, in `buffer`; `undefined` if it is too long. */
async function readHead(
  connection: Deno.TcpConn,
  buffer: Uint8Array,
): Promise<Uint8Array | undefined> {
  for (let length = 0; length < buffer.length;) {
    const count = await connection.read(buffer.subarray(length));
    if (count === null) throw new Error("The client has gone");
    length += count;
    const end = headLength(buffer.subarray(0, length));
    if (end >= 0) return buffer.subarray(0, end);
  }
  return undefined;
}

/** Reads what the client still sends: closing before would take the response back from it. */
async function linger(connection: Deno.TcpConn, buffer: Uint8Array): Promise<void> {
  const timer = setTimeout(() => closeQuietly(connection), LINGER_MS);
  try {
    for (let length = 0; length < LINGER_BYTES;) {
      const count = await connection.read(buffer);
      if (count === null) return;
      length += count;
    }
  } finally {
    clearTimeout(timer);
  }
}

function encode({ status, type, body }: HealthResponse, { bodyless = false } = {}): Uint8Array {
  const encoder = new TextEncoder();
  const head = [
    `HTTP/1.1 ${status} ${REASONS[status] ?? "Unknown"}`,
    `content-type: ${type}`,
    `content-length: ${encoder.encode(body).length}`,
    "cache-control: no-store",
    "x-content-type-options: nosniff",
    "connection: close",
    "\r\n",
  ].join("\r\n");
  return encoder.encode(bodyless ? head : head + body);
}

function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch { /* it is closed */ }
}
