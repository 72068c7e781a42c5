/**
 * How gRPC gets its connection to a member. grpc-js never closes sockets to a server that stays
 * silent, and its TLS cannot verify an IP address on Deno. So addresses come from here, each with a
 * signal that ends its socket, and TLS is done here.
 *
 * @module
 */
import type * as Grpc from "@grpc/grpc-js";
import { lookup } from "node:dns/promises";
import { isIP, type Socket } from "node:net";
import type { Endpoint } from "../../net/mod.ts";
import { abortable } from "../../util/abortable.ts";
import { sessionOver } from "./http2_workaround.ts";
import type { TlsMaterial } from "./tls_files.ts";
import { hasTlsSockets, startTls } from "./tls_socket.ts";

/** A gRPC channel to one member. Disposing it closes every socket that it has opened. */
export interface MemberChannel extends Disposable {
  readonly channel: Grpc.Channel;
  /** Why the connection could not be made or ended, where TLS says more than gRPC. */
  readonly failure: Error | undefined;
  /** Whether TLS was agreed on. */
  readonly secured: boolean;
  /** Gives up other addresses of the name, now that one works. */
  settle(): void;
}

/** The scheme of the targets that lead to the addresses of {@linkcode TARGETS}. */
const SCHEME = "flanneld-member";

interface Target {
  readonly authority: string;
  /** As `net.connect()` takes them. */
  readonly addresses: readonly MemberAddress[];
}

type MemberAddress =
  & ({ readonly host: string; readonly port: number } | { readonly path: string })
  & { readonly signal?: AbortSignal };

const TARGETS = new Map<string, Target>();
let targetCount = 0;

/**
 * Prepares a channel; it connects when it is first used. With `material` it speaks TLS.
 *
 * @throws {Error} If the host's name cannot be resolved; `signal.reason` on abort.
 */
export async function openChannel(
  grpc: typeof Grpc,
  endpoint: Endpoint,
  material: TlsMaterial | undefined,
  channelOptions: Grpc.ChannelOptions,
  options: { readonly signal: AbortSignal },
): Promise<MemberChannel> {
  registerTargets(grpc);
  const { hostname, port, path } = endpoint;
  const hosts = isIP(hostname) !== 0 || path !== undefined
    ? [hostname]
    : (await abortable(lookup(hostname, { all: true }), options)).map(({ address }) => address);
  const attempts = hosts.map((host) => ({ host, end: new AbortController() }));
  const sockets = new Set<Socket>();
  let disposed = false;
  let failure: Error | undefined;
  let secured = false;

  async function connect(socket: Socket): Promise<{ socket: Socket; secure: boolean }> {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    if (disposed) socket.destroy();
    if (material === undefined) return { socket, secure: false };
    const secure = await startTls(socket, endpoint, material, (error) => failure ??= error);
    secured = true;
    return { socket: secure, secure: true };
  }

  class MemberCredentials extends grpc.ChannelCredentials {
    _isSecure(): boolean {
      return material !== undefined;
    }
    _equals(other: Grpc.ChannelCredentials): boolean {
      return this === other;
    }
    _createSecureConnector(): ReturnType<Grpc.ChannelCredentials["_createSecureConnector"]> {
      return {
        connect,
        waitForReady: () => Promise.resolve(),
        getCallCredentials: () => grpc.CallCredentials.createEmpty(),
        destroy() {},
      };
    }
  }

  const name = String(++targetCount);
  TARGETS.set(name, {
    authority: authorityOf(endpoint),
    // Before Deno 2.9 a socket with a signal is leaked when its server closes it.
    addresses: attempts.map(({ host, end }) => ({
      ...(path === undefined ? { host, port } : { path }),
      ...(hasTlsSockets() ? { signal: end.signal } : {}),
    })),
  });
  const channel = new grpc.Channel(`${SCHEME}:${name}`, new MemberCredentials(), channelOptions);
  const giveUp = (those: typeof attempts) => {
    for (const { end } of those) end.abort(new Error("the connection was given up"));
  };
  return {
    channel,
    get failure() {
      return failure;
    },
    get secured() {
      return secured;
    },
    settle() {
      const used = new Set([...sockets].map(({ remoteAddress }) => remoteAddress));
      const idle = attempts.filter(({ host }) => !used.has(host));
      if (idle.length < attempts.length) giveUp(idle);
    },
    [Symbol.dispose]() {
      disposed = true;
      channel.close();
      TARGETS.delete(name);
      giveUp(attempts);
      for (const socket of sockets) {
        sessionOver(socket)?.destroy();
        socket.destroy();
      }
    },
  };
}

/** What HTTP/2 calls the member: host and port. */
export function authorityOf({ url, hostname, path }: Endpoint): string {
  return path === undefined ? url.replace(/^https?:\/\//, "") : hostname;
}

let registered = false;

/** Makes grpc-js look up {@linkcode SCHEME} in {@linkcode TARGETS}. */
function registerTargets({ experimental }: typeof Grpc): void {
  if (registered) return;
  registered = true;
  type Listener = Parameters<typeof experimental.createResolver>[1];
  class TargetResolver {
    readonly #path: string;
    readonly #listener: Listener;
    #told = false;

    constructor({ path }: { readonly path: string }, listener: Listener) {
      this.#path = path;
      this.#listener = listener;
    }

    updateResolution(): void {
      if (this.#told) return;
      this.#told = true;
      const { addresses = [] } = TARGETS.get(this.#path) ?? {};
      const endpoints = addresses.map((address) => ({ addresses: [address] }));
      // The channel is not ready for a response within the call.
      setTimeout(() => {
        this.#listener(experimental.statusOrFromValue(endpoints), {}, null, "");
      });
    }

    destroy(): void {
      this.#told = false;
    }

    static getDefaultAuthority({ path }: { readonly path: string }): string {
      return TARGETS.get(path)?.authority ?? path;
    }
  }
  experimental.registerResolver(SCHEME, TargetResolver);
}
