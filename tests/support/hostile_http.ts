/**
 * An HTTP server that means harm: what it sends is up to the test, byte by byte.
 *
 * @module
 */

/** A request as far as the server cares. */
export interface HostileRequest {
  /** Of this server, from 1. */
  readonly number: number;
  /** Parameters of the body, by name. */
  readonly params: Readonly<Record<string, string>>;
}

/** One answer, as it is sent. */
export interface HostileAnswer {
  /** Sends bytes; rejects once the client has closed. */
  send(bytes: string | Uint8Array): Promise<void>;
  /** Sends a whole answer with this body. */
  reply(
    body: string,
    head?: { readonly status?: string; readonly headers?: string },
  ): Promise<void>;
  /** Bytes sent so far. */
  readonly sentBytes: number;
  /** Aborts when the server is closed. */
  readonly signal: AbortSignal;
}

/** A server on loopback. Disposing ends every connection. */
export interface HostileServer extends AsyncDisposable {
  /** `http://127.0.0.1:port` */
  readonly url: string;
  /** Requests so far. */
  readonly requests: number;
  /** Connections that are open now. */
  readonly connections: number;
  /** The most that was sent over one connection, in bytes. */
  readonly mostSentBytes: number;
}

const MAX_REQUEST_BYTES = 256 * 1024;

/** Answers each request with `answer`; when that returns, the connection is kept for another. */
export function serveHostile(
  answer: (answer: HostileAnswer, request: HostileRequest) => Promise<void>,
): HostileServer {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const closing = new AbortController();
  const open = new Map<Deno.Conn, Promise<void>>();
  let requests = 0;
  let mostSentBytes = 0;
  const serve = async (connection: Deno.Conn) => {
    let sentBytes = 0;
    const send = async (data: string | Uint8Array) => {
      const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
      for (let at = 0; at < bytes.length;) {
        const count = await connection.write(bytes.subarray(at));
        at += count;
        sentBytes += count;
        mostSentBytes = Math.max(mostSentBytes, sentBytes);
      }
    };
    try {
      for (;;) {
        const params = await readRequest(connection);
        if (params === undefined) return;
        await answer({
          send,
          reply: (body, { status = "200 OK", headers = "" } = {}) =>
            send(
              `HTTP/1.1 ${status}\r\n${headers}` +
                `content-length: ${new TextEncoder().encode(body).length}\r\n\r\n${body}`,
            ),
          get sentBytes() {
            return sentBytes;
          },
          signal: closing.signal,
        }, { number: ++requests, params });
      }
    } catch {
      // The client has closed, or the server has.
    } finally {
      close(connection);
    }
  };
  const accepting = (async () => {
    try {
      for await (const connection of listener) {
        open.set(connection, serve(connection).finally(() => open.delete(connection)));
      }
    } catch {
      // closed
    }
  })();
  return {
    url: `http://127.0.0.1:${(listener.addr as Deno.NetAddr).port}`,
    get requests() {
      return requests;
    },
    get connections() {
      return open.size;
    },
    get mostSentBytes() {
      return mostSentBytes;
    },
    async [Symbol.asyncDispose]() {
      closing.abort(new DOMException("The server is closed", "AbortError"));
      close(listener);
      for (const connection of open.keys()) close(connection);
      await accepting;
      await Promise.all(open.values());
    },
  };
}

/** The parameters of the next request; `undefined` once the client has closed. */
async function readRequest(connection: Deno.Conn): Promise<Record<string, string> | undefined> {
  let text = "";
  const chunk = new Uint8Array(16 * 1024);
  while (text.length < MAX_REQUEST_BYTES) {
    const count = await connection.read(chunk);
    if (count === null) return undefined;
    // Signed requests are ASCII throughout.
    text += new TextDecoder().decode(chunk.subarray(0, count));
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) continue;
    const length = Number(/^content-length: *(\d+)/im.exec(text.slice(0, end))?.[1] ?? 0);
    const body = text.slice(end + 4);
    if (body.length >= length) return Object.fromEntries(new URLSearchParams(body));
  }
  return undefined;
}

function close(resource: { close(): void }): void {
  try {
    resource.close();
  } catch { /* closed already */ }
}
