/**
 * A small HTTP/1.1 server over a plain listener. Unlike `Deno.serve` it can misbehave: end a
 * connection without an answer, cut an answer short, or never answer.
 *
 * @module
 */

const MAX_HEAD_BYTES = 64 * 1024;
const MAX_BODY_BYTES = 1024 * 1024;
/** A request line longer than this gets 414, as at common gateways. */
const MAX_TARGET_BYTES = 8 * 1024;

export interface HttpRequest {
  readonly method: string;
  /** Path and query as sent. */
  readonly target: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
  /** Address of the peer. */
  readonly source: string;
  readonly secure: boolean;
  /** Aborts when the server is closed. */
  readonly signal: AbortSignal;
}

export type HttpAnswer =
  | {
    readonly kind: "response";
    readonly status: number;
    readonly contentType: string;
    readonly body: string;
  }
  /** Half of the body is sent, then the connection ends. */
  | {
    readonly kind: "truncate";
    readonly status: number;
    readonly contentType: string;
    readonly body: string;
  }
  | { readonly kind: "drop" }
  /** No answer; the connection stays until the peer or the server closes it. */
  | { readonly kind: "hang" };

export type HttpHandler = (request: HttpRequest) => Promise<HttpAnswer> | HttpAnswer;

export interface HttpServer extends AsyncDisposable {
  /** `http://address:port` */
  readonly url: string;
}

/** Options of {@linkcode serveHttp}. */
export interface HttpServerOptions {
  readonly hostname: string;
  /** @default {0}, any free one */
  readonly port?: number;
  /** PEM texts; with them the server speaks TLS. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** Listens at once and answers until disposed; disposing ends every connection. */
export function serveHttp(options: HttpServerOptions, handler: HttpHandler): HttpServer {
  const { hostname, port = 0, tls } = options;
  const listener = tls
    ? Deno.listenTls({ hostname, port, ...tls })
    : Deno.listen({ hostname, port });
  const address = listener.addr as Deno.NetAddr;
  const controller = new AbortController();
  const connections = new Map<Deno.Conn, Promise<void>>();
  const loop = (async () => {
    while (true) {
      let connection: Deno.Conn;
      try {
        connection = await listener.accept();
      } catch (error) {
        if (controller.signal.aborted || error instanceof Deno.errors.BadResource) return;
        // A failed TLS handshake is the peer's affair; want of descriptors may pass.
        await new Promise((resolve) => setTimeout(resolve, 10));
        continue;
      }
      const context = { handler, secure: tls !== undefined, signal: controller.signal };
      connections.set(
        connection,
        serveConnection(connection, context).finally(() => connections.delete(connection)),
      );
    }
  })();
  const host = address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname;
  return {
    url: `${tls ? "https" : "http"}://${host}:${address.port}`,
    async [Symbol.asyncDispose]() {
      controller.abort(new DOMException("The server was closed", "AbortError"));
      listener.close();
      await loop;
      for (const connection of connections.keys()) close(connection);
      await Promise.all(connections.values());
    },
  };
}

interface Context {
  readonly handler: HttpHandler;
  readonly secure: boolean;
  readonly signal: AbortSignal;
}

async function serveConnection(connection: Deno.Conn, context: Context): Promise<void> {
  const source = (connection.remoteAddr as Deno.NetAddr).hostname;
  const reader = new ConnectionReader(connection);
  try {
    while (true) {
      const parsed = await readRequest(reader);
      if (!parsed) return;
      if ("refusal" in parsed) {
        await writeResponse(connection, parsed.refusal, { keepAlive: false });
        return;
      }
      const { request, keepAlive } = parsed;
      const answer = await answerTo({
        ...request,
        source,
        secure: context.secure,
        signal: context.signal,
      }, context);
      switch (answer.kind) {
        case "drop":
          return;
        case "hang":
          await reader.untilEnd();
          return;
        case "truncate":
          await writeResponse(connection, answer, { keepAlive: false, cut: true });
          return;
        case "response":
          await writeResponse(connection, answer, { keepAlive });
      }
      if (!keepAlive) return;
    }
  } catch {
    // The peer went away, or sent what is not HTTP: there is nobody to tell.
  } finally {
    close(connection);
  }
}

/** The handler's answer. An error in it is a fault of the simulator, which must not go unseen. */
async function answerTo(request: HttpRequest, { handler, signal }: Context): Promise<HttpAnswer> {
  try {
    return await handler(request);
  } catch (error) {
    if (!signal.aborted) reportError(error);
    return { kind: "drop" };
  }
}

type Parsed =
  | {
    readonly request: Pick<HttpRequest, "method" | "target" | "headers" | "body">;
    readonly keepAlive: boolean;
  }
  | { readonly refusal: Extract<HttpAnswer, { kind: "response" }> };

async function readRequest(reader: ConnectionReader): Promise<Parsed | undefined> {
  const head = await reader.readHead();
  if (head === undefined) return undefined;
  const [requestLine = "", ...lines] = head.split("\r\n");
  const match = /^([A-Z]+) (\S+) HTTP\/1\.([01])$/.exec(requestLine);
  if (!match) return { refusal: htmlAnswer(400, "Bad Request") };
  const [, method, target, minor] = match;
  if (target!.length > MAX_TARGET_BYTES) return { refusal: htmlAnswer(414, "URI Too Long") };
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
  }
  const body = headers.get("transfer-encoding")?.toLowerCase() === "chunked"
    ? await reader.readChunked()
    : await reader.readBytes(Number(headers.get("content-length") ?? 0));
  const wish = headers.get("connection")?.toLowerCase();
  return {
    request: { method: method!, target: target!, headers, body: new TextDecoder().decode(body) },
    keepAlive: minor === "1" ? wish !== "close" : wish === "keep-alive",
  };
}

/** An answer as a proxy in front of the service gives it. */
export function htmlAnswer(
  status: number,
  title: string,
): Extract<HttpAnswer, { kind: "response" }> {
  const body = `<html>\r\n<head><title>${status} ${title}</title></head>\r\n` +
    `<body bgcolor="white">\r\n<center><h1>${status} ${title}</h1></center>\r\n` +
    `<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n`;
  return { kind: "response", status, contentType: "text/html", body };
}

async function writeResponse(
  connection: Deno.Conn,
  answer: { readonly status: number; readonly contentType: string; readonly body: string },
  options: { keepAlive: boolean; cut?: boolean },
): Promise<void> {
  const body = new TextEncoder().encode(answer.body);
  const bodiless = answer.status === 204 || answer.status === 304;
  const head = [
    `HTTP/1.1 ${answer.status} ${REASONS[answer.status] ?? "Status"}`,
    `Date: ${new Date().toUTCString()}`,
    ...(bodiless ? [] : [`Content-Type: ${answer.contentType}`, `Content-Length: ${body.length}`]),
    `Connection: ${options.keepAlive ? "keep-alive" : "close"}`,
    "",
    "",
  ].join("\r\n");
  const sent = bodiless ? new Uint8Array() : options.cut ? body.slice(0, body.length >> 1) : body;
  const prefix = new TextEncoder().encode(head);
  const message = new Uint8Array(prefix.length + sent.length);
  message.set(prefix);
  message.set(sent, prefix.length);
  for (let offset = 0; offset < message.length;) {
    offset += await connection.write(message.subarray(offset));
  }
}

/** Buffers what a connection brings and takes it apart. */
class ConnectionReader {
  readonly #connection: Deno.Conn;
  #buffer = new Uint8Array();

  constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  /** Request line and headers without the empty line; `undefined` once the peer has closed. */
  async readHead(): Promise<string | undefined> {
    while (true) {
      const end = indexOfBlankLine(this.#buffer);
      if (end >= 0) {
        const head = new TextDecoder().decode(this.#buffer.subarray(0, end));
        this.#buffer = this.#buffer.slice(end + 4);
        return head;
      }
      if (this.#buffer.length > MAX_HEAD_BYTES) throw new RangeError("Head too long");
      if (!await this.#fill()) return undefined;
    }
  }

  async readBytes(length: number): Promise<Uint8Array> {
    if (!(length >= 0 && length <= MAX_BODY_BYTES)) throw new RangeError("Body too long");
    while (this.#buffer.length < length) {
      if (!await this.#fill()) throw new Deno.errors.UnexpectedEof("Body cut short");
    }
    const bytes = this.#buffer.slice(0, length);
    this.#buffer = this.#buffer.slice(length);
    return bytes;
  }

  async readChunked(): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let total = 0;
    while (true) {
      let line = "";
      while (!line.endsWith("\r\n")) line += new TextDecoder().decode(await this.readBytes(1));
      const length = parseInt(line, 16);
      const chunk = await this.readBytes(length);
      await this.readBytes(2);
      total += length;
      if (length === 0) break;
      if (total > MAX_BODY_BYTES) throw new RangeError("Body too long");
      chunks.push(chunk);
    }
    const body = new Uint8Array(total);
    let offset = 0;
    for (const chunk of chunks) {
      body.set(chunk, offset);
      offset += chunk.length;
    }
    return body;
  }

  /** Waits until the peer closes. */
  async untilEnd(): Promise<void> {
    while (await this.#fill()) this.#buffer = new Uint8Array();
  }

  async #fill(): Promise<boolean> {
    const chunk = new Uint8Array(16 * 1024);
    const count = await this.#connection.read(chunk);
    if (count === null) return false;
    const joined = new Uint8Array(this.#buffer.length + count);
    joined.set(this.#buffer);
    joined.set(chunk.subarray(0, count), this.#buffer.length);
    this.#buffer = joined;
    return true;
  }
}

function indexOfBlankLine(bytes: Uint8Array): number {
  for (let i = 0; i + 3 < bytes.length; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) {
      return i;
    }
  }
  return -1;
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch { /* closed already */ }
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  204: "No Content",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  414: "URI Too Long",
  429: "Too Many Requests",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
};
