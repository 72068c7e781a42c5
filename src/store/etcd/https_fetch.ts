/**
 * Requests over TLS as `fetch` makes them, over `node:https`: it trusts the given CA alone, and takes
 * a self-signed certificate that is its own CA. It uses no proxy and follows no redirect.
 *
 * @module
 */
import https from "node:https";
import { Readable } from "node:stream";
import type { Endpoint } from "../../net/mod.ts";
import type { TlsMaterial } from "./tls_files.ts";
import { tlsOptions } from "./tls_socket.ts";

/** A request; as of `fetch`, as far as it is used here. */
export interface HttpsRequest {
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: URLSearchParams;
  readonly signal: AbortSignal;
}

/** Connections to one member, kept between requests until this is disposed. */
export class HttpsClient implements Disposable {
  readonly material: TlsMaterial;
  readonly endpoint: Endpoint;
  readonly #agent: https.Agent;

  constructor(endpoint: Endpoint, material: TlsMaterial) {
    this.endpoint = endpoint;
    this.material = material;
    // No session tickets: resuming would skip the verification with files that were replaced.
    this.#agent = new https.Agent({
      ...tlsOptions(endpoint, material),
      keepAlive: true,
      maxCachedSessions: 0,
    });
  }

  /** @throws {Error} If no response comes. */
  fetch(url: string, { method, headers, body, signal }: HttpsRequest): Promise<Response> {
    return new Promise((resolve, reject) => {
      const text = body?.toString();
      const request = https.request(url, {
        agent: this.#agent,
        method,
        signal,
        headers: text === undefined ? headers : {
          ...headers,
          "Content-Type": "application/x-www-form-urlencoded;charset=UTF-8",
          "Content-Length": String(text.length),
        },
      }, (message) => {
        const { statusCode: status = 500 } = message;
        const received = new Headers();
        for (const [name, value] of Object.entries(message.headers)) {
          if (value !== undefined) received.set(name, String(value));
        }
        const bare = status === 204 || status === 304 || method === "HEAD";
        const stream = bare ? null : Readable.toWeb(message) as ReadableStream<Uint8Array>;
        if (bare) message.resume();
        resolve(new Response(stream, { status, headers: received }));
      });
      // A socket that comes after the end would belong to nobody.
      request.on("socket", (socket) => signal.aborted && socket.destroy());
      request.on("error", reject);
      request.end(text);
    });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}
