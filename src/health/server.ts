import { describeError, OperatorError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { redact } from "../secret.ts";

/** The daemon's state, as its endpoints tell it. */
export interface HealthReport {
  /** Whether the subnet is usable; it may go false again. */
  readonly ready: boolean;
  /** Why not ready (or what is degraded), one sentence each. */
  readonly reasons: readonly string[];
  /** Facts for people and scripts; JSON values. */
  readonly status: Readonly<Record<string, unknown>>;
}

/** Options of {@linkcode serveHealth}. */
export interface ServeHealthOptions {
  /** `--healthz-ip` */
  readonly hostname: string;
  /** `--healthz-port` */
  readonly port: number;
  /** Called for each request to `/readyz` and `/status`. */
  readonly report: () => HealthReport;
  /** Closes the server, connections included. */
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** A running health server. */
export interface HealthServer {
  readonly port: number;
  /** Resolves when it is closed and every connection has gone; never rejects. */
  readonly finished: Promise<void>;
}

/**
 * Serves, for any method:
 * - `/healthz`: 200 as long as the process can answer;
 * - `/readyz`: 200, or 503 with one reason per line;
 * - `/status`: the whole report as JSON.
 *
 * Whoever reaches the port may read them all, so the report must hold nothing confidential.
 *
 * @throws {OperatorError} If the address cannot be bound.
 */
export function serveHealth(options: ServeHealthOptions): HealthServer {
  const { hostname, port, signal, log } = options;
  signal.throwIfAborted();
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({
      hostname,
      port,
      signal,
      onListen() {},
      onError(error) {
        log.error("Cannot answer a health request", { error });
        return text(500, "flanneld cannot tell its state");
      },
    }, (request) => respond(new URL(request.url).pathname, options.report));
  } catch (cause) {
    throw new OperatorError(bindFault(hostname, port, cause), { cause });
  }
  log.debug("Serving health endpoints", { hostname, port: server.addr.port });
  return { port: server.addr.port, finished: server.finished };
}

function respond(path: string, report: () => HealthReport): Response {
  switch (path) {
    case "/healthz":
      return text(200, "flanneld is running");
    case "/readyz": {
      const { ready, reasons } = report();
      if (ready) return text(200, "flanneld is ready");
      return text(503, ["flanneld is not ready yet", ...reasons].join("\n"));
    }
    case "/status": {
      const body = redact(JSON.stringify(report(), toJson, 2));
      return new Response(`${body}\n`, { headers: { "content-type": "application/json" } });
    }
    default:
      return text(404, "not found; there are /healthz, /readyz and /status");
  }
}

function text(status: number, body: string): Response {
  const headers = { "content-type": "text/plain; charset=utf-8" };
  return new Response(redact(body), { status, headers });
}

function toJson(_name: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  // Before JSON escapes quotes and backslashes, which would hide a secret that has some.
  if (typeof value === "string") return redact(value);
  return value instanceof Error ? redact(describeError(value)) : value;
}

function bindFault(hostname: string, port: number, cause: unknown): string {
  const where = `Cannot serve health endpoints at --healthz-ip=${hostname} --healthz-port=${port}`;
  if (cause instanceof Deno.errors.AddrInUse) {
    return `${where}: the port is taken by another program; choose another port`;
  }
  if (cause instanceof Deno.errors.AddrNotAvailable) {
    return `${where}: this host has no such address`;
  }
  if (cause instanceof Deno.errors.PermissionDenied) {
    return `${where}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE`;
  }
  return `${where}: ${describeError(cause)}`;
}
