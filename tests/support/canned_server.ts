/** A small HTTP server whose answers a test makes up. @module */

/** A request as the canned server saw it. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: string;
  /** Body and query as parameters. */
  readonly params: Readonly<Record<string, string>>;
}

/** A server on loopback whose every answer is `answer(request)`. */
export function cannedServer(
  answer: (request: SeenRequest, number: number) => Response | Promise<Response>,
) {
  const seen: SeenRequest[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (raw) => {
    const url = new URL(raw.url);
    const body = await raw.text();
    const request: SeenRequest = {
      method: raw.method,
      path: decodeURIComponent(url.pathname),
      headers: raw.headers,
      body,
      params: Object.fromEntries([...url.searchParams, ...new URLSearchParams(body)]),
    };
    seen.push(request);
    return await answer(request, seen.length);
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    seen,
    async [Symbol.asyncDispose]() {
      await server.shutdown();
    },
  };
}

/** An API's JSON answer. */
export function json(body: unknown, status = 200): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json" },
  });
}

/** An API's error. */
export function apiError(code: string, message = "no", status = 400): Response {
  return json({ RequestId: "REQ-1", HostId: "host", Code: code, Message: message }, status);
}
