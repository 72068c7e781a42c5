import { OperatorError } from "../errors.ts";
import { abortable } from "../util/abortable.ts";
import type { Endpoint } from "../net/mod.ts";
import type { TlsMaterial } from "./tls_files.ts";

/** The server speaks TLS, but not HTTP/2, and so not gRPC. */
export class Http2RefusedError extends Error {
  override name = "Http2RefusedError";
}

/** A way for HTTP/2 in clear text, over a private socket, to come out as TLS at the endpoint. */
export interface TlsTunnel extends Disposable {
  /** Path of the socket. It takes one connection and is gone after it. */
  readonly socketPath: string;
  /**
   * Why the TLS side ended, if it did by an error. With TLS 1.3 a server refuses a client
   * certificate only after the handshake, so it shows here and not when connecting.
   */
  readonly failure: Error | undefined;
}

/**
 * Connects to `endpoint` with TLS, verifies its certificate (name or IP SAN) and offers the
 * connection on a socket in a directory that only this user can enter.
 *
 * This is how etcd3 gets TLS: grpc-js cannot connect to an IP address over Deno's `node:tls`, which
 * refuses to send an address as SNI, and guides give IP addresses. A loopback TCP port instead of
 * the socket would lend our client certificate to every local user.
 *
 * @throws {OperatorError} On Deno before 2.9, where HTTP/2 over such a socket hangs.
 * @throws What `Deno.connectTls` throws; `signal.reason` on abort.
 */
export async function openTlsTunnel(
  endpoint: Endpoint,
  material: TlsMaterial,
  options: { signal: AbortSignal },
): Promise<TlsTunnel> {
  requireTunnelSupport(endpoint);
  const { signal } = options;
  signal.throwIfAborted();
  using stack = new DisposableStack();
  const remote = stack.use(await connectTls(endpoint, material, { signal }));

  const directory = await Deno.makeTempDir({ prefix: "flanneld-" });
  stack.defer(() => removeQuietly(directory));
  const socketPath = `${directory}/etcd`;
  const listener = stack.use(Deno.listen({ transport: "unix", path: socketPath }));
  const moved = stack.move();
  let failure: Error | undefined;
  join(listener, remote, directory, (error) => failure = error);
  return {
    socketPath,
    get failure() {
      return failure;
    },
    [Symbol.dispose]: () => disposeQuietly(moved),
  };
}

/** @throws {OperatorError} If this version of Deno cannot do it. */
export function requireTunnelSupport(endpoint: Endpoint): void {
  const [major = 0, minor = 0] = Deno.version.deno.split(".").map(Number);
  if (major > 2 || (major === 2 && minor >= 9)) return;
  throw new OperatorError(
    `Cannot use etcd v3 at ${endpoint.url}: TLS to etcd needs Deno 2.9, this program was built ` +
      `with ${Deno.version.deno}; use a build with a newer Deno, or an http endpoint`,
  );
}

async function connectTls(
  endpoint: Endpoint,
  material: TlsMaterial,
  options: { signal: AbortSignal },
): Promise<Deno.TlsConn> {
  const { signal } = options;
  const connecting = (async () => {
    const connection = await Deno.connectTls({
      hostname: endpoint.hostname,
      port: endpoint.port,
      alpnProtocols: ["h2"],
      ...material,
    } as Deno.ConnectTlsOptions);
    const abort = () => disposeQuietly(connection);
    signal.addEventListener("abort", abort, { once: true });
    try {
      if (signal.aborted) abort();
      const { alpnProtocol } = await connection.handshake();
      if (alpnProtocol !== "h2") throw new Http2RefusedError("the server does not speak HTTP/2");
      return connection;
    } catch (error) {
      disposeQuietly(connection);
      if (/NoApplicationProtocol/.test(String(error))) {
        throw new Http2RefusedError("the server does not speak HTTP/2", { cause: error });
      }
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  })();
  try {
    return await abortable(connecting, { signal });
  } catch (error) {
    // Deno.connectTls cannot be aborted: a connection that comes too late is closed.
    connecting.then(disposeQuietly, () => {});
    throw error;
  }
}

/** Joins the first connection to `remote`; whichever side ends, both do. */
async function join(
  listener: Deno.UnixListener,
  remote: Deno.TlsConn,
  directory: string,
  onFailure: (error: Error) => void,
): Promise<void> {
  using stack = new DisposableStack();
  stack.adopt(remote, disposeQuietly);
  let local: Deno.UnixConn;
  try {
    local = stack.adopt(await listener.accept(), disposeQuietly);
  } catch {
    return; // disposed before anyone connected
  }
  disposeQuietly(listener);
  removeQuietly(directory);
  try {
    // Where sending fails, receiving tells why. The local side ends only after that is noted.
    const received = remote.readable.pipeTo(local.writable, { preventAbort: true });
    const sent = local.readable.pipeTo(remote.writable).catch(() => received);
    await Promise.race([received, sent]);
  } catch (error) {
    onFailure(error instanceof Error ? error : new Error(String(error)));
  }
}

function disposeQuietly(resource: Disposable): void {
  try {
    resource[Symbol.dispose]();
  } catch { /* It is closed already. */ }
}

function removeQuietly(directory: string): void {
  try {
    Deno.removeSync(directory, { recursive: true });
  } catch { /* It is gone already. */ }
}
