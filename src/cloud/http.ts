/** Plain HTTP calls with limits. @module */
import { Buffer } from "node:buffer";
import http from "node:http";
import https from "node:https";
import { deadline } from "../util/time.ts";
import { limitAnswer } from "./answer_limit.ts";
import { onBrokenBody } from "./broken_body.ts";

export interface HttpRequestOptions {
  readonly signal: AbortSignal;
  readonly method?: "GET" | "PUT" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** From the first packet to the end of the reply. */
  readonly timeoutMs: number;
  /** Whether no proxy may be used, whatever the environment says. @default {false} */
  readonly direct?: boolean;
  /** Longer replies are an error. @default {65_536} */
  readonly maxBytes?: number;
}

/** A reply, whatever its status. */
export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

/** Node 24's option for proxies; its declarations lag behind. An empty environment names none. */
const NO_PROXY = { proxyEnv: {} } as https.AgentOptions;

/**
 * One small HTTP exchange on a connection of its own. Not by `fetch`, which takes a proxy from the
 * environment and cannot be told otherwise: Node's client does so only if `NODE_USE_ENV_PROXY=1`
 * asks for it, and not at all if `direct`. Redirects are not followed.
 *
 * @throws `signal.reason` on abort, a `TimeoutError`, or the connection's error.
 */
export async function httpRequest(url: string, options: HttpRequestOptions): Promise<HttpAnswer> {
  const { maxBytes = 65_536, timeoutMs } = options;
  using limit = deadline(timeoutMs, options);
  limit.signal.throwIfAborted();
  let cutShort = () => {};
  using _broken = onBrokenBody(() => cutShort());
  const target = new URL(url);
  const module = target.protocol === "https:" ? https : http;
  let stop = () => {};
  let answer: http.IncomingMessage | undefined;
  try {
    return await new Promise<HttpAnswer>((resolve, reject) => {
      const request = module.request(target, {
        method: options.method ?? "GET",
        headers: {
          ...options.headers,
          ...(options.body === undefined
            ? {}
            : { "content-length": String(Buffer.byteLength(options.body)) }),
        },
        agent: options.direct ? new module.Agent(NO_PROXY) : false,
      });
      stop = () => {
        reject(limit.signal.reason);
        request.destroy();
        // Deno 2.7 would read it to its end.
        answer?.destroy();
      };
      cutShort = () => reject(new Error("the answer was cut short"));
      limitAnswer(request, {
        maxBytes,
        refuse: (reason) => {
          reject(new Error(reason));
          request.destroy();
        },
      });
      limit.signal.addEventListener("abort", stop, { once: true });
      request.on("error", reject);
      request.on("response", (response) => {
        answer = response;
        const chunks: Uint8Array[] = [];
        response.on("data", (chunk: Uint8Array) => chunks.push(chunk));
        response.on("error", reject);
        response.on("aborted", cutShort);
        response.on("end", () => {
          const text = new TextDecoder().decode(Buffer.concat(chunks));
          resolve({ status: response.statusCode ?? 0, text });
        });
      });
      request.end(options.body);
    });
  } finally {
    limit.signal.removeEventListener("abort", stop);
  }
}
