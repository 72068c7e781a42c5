/** Faults of Deno's HTTP/2 client that gRPC meets, worked around. */
import http2 from "node:http2";
import type { Socket } from "node:net";

/** HTTP/2 sessions over a given socket keep the first bytes from this version of Deno on. */
const FIRST_RIGHT_MINOR = 9;

type Connect = (...args: unknown[]) => http2.ClientHttp2Session;

let applied = false;

/** The session that was opened in place of one over a given socket. */
const sessions = new WeakMap<object, http2.ClientHttp2Session>();

/** What has to end together with `socket`, as the session over it has another one. */
export function sessionOver(socket: Socket): http2.ClientHttp2Session | undefined {
  return sessions.get(socket);
}

/** Applies the workarounds. To be called before grpc-js makes its first connection. */
export function repairHttp2(): void {
  if (applied) return;
  applied = true;
  const [major = 0, minor = 0] = Deno.version.deno.split(".").map(Number);
  const isOld = major < 2 || (major === 2 && minor < FIRST_RIGHT_MINOR);
  const connect = http2.connect as Connect;
  const repaired = closeLater(isOld ? keepFirstBytes(connect) : connect);
  (http2 as { connect: unknown }).connect = repaired;
}

/**
 * A session without streams that is closed while it reads what the server has sent is freed under
 * the reader: the process ends with SIGSEGV or an assertion of nghttp2. When etcd stops in order,
 * it says so (GOAWAY), and grpc-js and Deno both react by closing the session at once. Seen with
 * Deno 2.9.6.
 */
function closeLater(connect: Connect): Connect {
  return (...args) => {
    const session = connect(...args);
    const close = session.close.bind(session);
    session.close = (callback) => void setTimeout(() => close(callback));
    return session;
  };
}

/**
 * Deno before 2.9 loses what a server sends before `http2.connect()` takes a socket over: about
 * every second connection of grpc-js to etcd hung. There, `http2.connect()` opens the socket
 * itself: same peer, plain HTTP only. The one that grpc-js opened is kept until the session stands,
 * since its end would end the session.
 */
function keepFirstBytes(connect: Connect): Connect {
  return (authority, options, listener) => {
    const given = options as http2.ClientSessionOptions | undefined;
    if (!given?.createConnection || !String(authority).startsWith("http:")) {
      return connect(authority, options, listener);
    }
    const { createConnection, ...rest } = given;
    const socket = createConnection(new URL(String(authority)), given) as Socket;
    const { remoteAddress = "", remotePort } = socket;
    const host = remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress;
    const session = connect(`http://${host}:${remotePort}`, rest, listener);
    sessions.set(socket, session);
    session.once("remoteSettings", () => socket.destroy());
    session.once("close", () => socket.destroy());
    return session;
  };
}
