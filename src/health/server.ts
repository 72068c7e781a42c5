/** The health endpoints: what each serves, and to whom. @module */
import { describeError, OperatorError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { Address } from "../net/mod.ts";
import {
  type HealthPeer,
  type HealthResponse,
  listenForRequests,
  plain,
  type RequestListener,
} from "./listener.ts";
import type { HealthRequest } from "./request.ts";

export interface ServeHealthOptions {
  /** `--healthz-ip` */
  readonly hostname: string;
  /** `--healthz-port` */
  readonly port: number;
  /** This host's name, by which `/status` may be asked for. */
  readonly hostName?: string;
  /** Called for each request to `/readyz`; neither this nor `status` may hold a secret. */
  readonly readyz: () => { readonly ready: boolean; readonly text: string };
  /** Called for each request to `/status`; returns JSON. */
  readonly status: () => string;
  /** Closes the server, connections included. */
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/**
 * Serves, for any method:
 * - `/healthz`: 200 as long as the process can respond;
 * - `/readyz`: 200, or 503 with one reason per line; remarks follow either's first line;
 * - `/status`: the whole state as JSON, to this host alone unless `hostname` is one address that
 *   the operator chose, and never under another site's name (DNS rebinding).
 *
 * Requests are never logged: any client could fill the disk.
 *
 * @throws {OperatorError} If the address cannot be bound.
 */
export function serveHealth(options: ServeHealthOptions): RequestListener {
  const { hostname, port, signal, log } = options;
  signal.throwIfAborted();
  let server: RequestListener;
  try {
    server = listenForRequests({
      hostname,
      port,
      signal,
      respond: (request, peer) => respond(request, peer, options),
    });
  } catch (cause) {
    throw new OperatorError(bindFault(hostname, port, cause), { cause });
  }
  log.debug("Serving health endpoints", { hostname, port: server.port });
  return server;
}

/** The response to a request from `peer`. */
export function respond(
  { path, host }: HealthRequest,
  peer: HealthPeer,
  options: Pick<ServeHealthOptions, "hostname" | "hostName" | "readyz" | "status">,
): HealthResponse {
  switch (path) {
    case "/healthz":
      return plain(200, "flanneld is running");
    case "/readyz": {
      const { ready, text: body } = options.readyz();
      return plain(ready ? 200 : 503, body);
    }
    case "/status": {
      if (Address.tryParse(options.hostname)?.isUnspecified() && !isThisHost(peer)) {
        return plain(
          403,
          "/status is for this host alone, unless --healthz-ip is one address of the host",
        );
      }
      if (!isOwnName(host, options.hostName)) {
        return plain(
          403,
          "/status is served by IP address, as localhost or by the host's name only",
        );
      }
      return { status: 200, type: "application/json", body: `${options.status()}\n` };
    }
    default:
      return plain(404, "not found; there are /healthz, /readyz and /status");
  }
}

/** Whether the client runs on this host: the kernel drops these sources from elsewhere. */
function isThisHost({ remote, local }: HealthPeer): boolean {
  return remote === local || (Address.tryParse(remote)?.unmapped().isLoopback() ?? false);
}

/**
 * Whether `host`, a `Host` header, cannot come from a web page elsewhere by way of a visitor's
 * browser: such a page needs a name that its owner controls.
 */
function isOwnName(host: string | undefined, hostName: string | undefined): boolean {
  if (host === undefined || host === "") return true; // no browser leaves it out
  const name = host.toLowerCase().replace(/:\d{1,5}$/, "");
  if (name === "localhost" || name === hostName?.toLowerCase()) return true;
  const bracketed = /^\[(.*)\]$/.exec(name)?.[1];
  return Address.tryParse(bracketed ?? name)?.family === (bracketed === undefined ? 4 : 6);
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
