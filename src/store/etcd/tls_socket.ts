/**
 * TLS to etcd over Deno's `node:tls`: unlike `Deno.connectTls` and `fetch`, it trusts the given CA
 * alone, and takes a self-signed certificate that is its own CA, as Go does.
 *
 * @module
 */
import { isIP, type Socket } from "node:net";
import tls from "node:tls";
import { OperatorError } from "../../errors.ts";
import type { Endpoint } from "../../net/mod.ts";
import type { TlsMaterial } from "./tls_files.ts";

/** The server speaks TLS, but not HTTP/2, and so not gRPC. */
export class Http2RefusedError extends Error {
  override name = "Http2RefusedError";
}

/** Whether this version of Deno can do it: before 2.9, HTTP/2 over `node:tls` hangs. */
export function hasTlsSockets(): boolean {
  const [major = 0, minor = 0] = Deno.version.deno.split(".").map(Number);
  return major > 2 || (major === 2 && minor >= 9);
}

/** @throws {OperatorError} If this version of Deno cannot use gRPC over such a socket. */
export function requireTlsSockets(endpoint: Endpoint): void {
  if (hasTlsSockets()) return;
  const what = endpoint.secure ? "TLS to etcd" : "a unix socket";
  throw new OperatorError(
    `Cannot use etcd v3 at ${endpoint.url}: ${what} needs Deno 2.9, this program was built ` +
      `with ${Deno.version.deno}; use a build with a newer Deno, or an http endpoint`,
  );
}

/** What `node:tls` and `node:https` are to be given for `endpoint`. */
export function tlsOptions(endpoint: Endpoint, material: TlsMaterial): tls.ConnectionOptions {
  const { hostname } = endpoint;
  const { ca, cert, key } = material;
  return {
    // The name or the address is verified; only a name may be sent as SNI.
    host: hostname,
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    minVersion: "TLSv1.2",
  };
}

/**
 * TLS with HTTP/2 over a connected `socket`, once the server's certificate is verified.
 *
 * @param onFailure Told of what fails, also later: with TLS 1.3 a server refuses a client
 * certificate only after the handshake.
 * @throws {Http2RefusedError} If the server does not choose HTTP/2.
 */
export function startTls(
  socket: Socket,
  endpoint: Endpoint,
  material: TlsMaterial,
  onFailure: (error: Error) => void,
): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      secure.destroy();
      socket.destroy();
      const refused = /NO_APPLICATION_PROTOCOL|NoApplicationProtocol/.test(
        `${(error as { code?: unknown }).code} ${error.message}`,
      );
      const reported = refused ? http2Refused(error) : error;
      onFailure(reported);
      reject(reported);
    };
    const options = { ...tlsOptions(endpoint, material), socket, ALPNProtocols: ["h2"] };
    const secure = tls.connect(options, () => {
      if (secure.alpnProtocol === "h2") resolve(secure);
      else fail(http2Refused());
    });
    secure.on("error", fail);
    secure.on("close", () => reject(new Error("the connection was closed by the server")));
  });
}

function http2Refused(cause?: Error): Http2RefusedError {
  return new Http2RefusedError("the server does not speak HTTP/2", { cause });
}

/** Whether a server that does not speak as it should does so because it speaks TLS. */
export function speaksTls(endpoint: Endpoint, options: { signal: AbortSignal }): Promise<boolean> {
  const { hostname, port } = endpoint;
  if (!hasTlsSockets() || port === 0 || options.signal.aborted) return Promise.resolve(false);
  return new Promise((resolve) => {
    // Nothing is sent over it but the greeting, so whose certificate it is does not matter.
    const probe = tls.connect({ host: hostname, port, rejectUnauthorized: false });
    const end = (spoke: boolean) => {
      clearTimeout(timer);
      options.signal.removeEventListener("abort", onAbort);
      probe.destroy();
      resolve(spoke);
    };
    const onAbort = () => end(false);
    const timer = setTimeout(onAbort, PROBE_MS);
    options.signal.addEventListener("abort", onAbort);
    probe.once("secureConnect", () => end(true));
    probe.on("error", (error) => end(/fatal alert/.test(error.message)));
    probe.once("close", () => end(false));
  });
}

const PROBE_MS = 1_000;
