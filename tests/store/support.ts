import { Address, Prefix } from "../../src/net/mod.ts";
import { missingTools, skippable, type Tool } from "../prerequisites.ts";
import { Secret } from "../../src/secret.ts";
import {
  type EtcdOptions,
  type EtcdSettings,
  parseEtcdOptions,
} from "../../src/store/etcd/options.ts";
import type { LogFields, Logger, LogLevel } from "../../src/log.ts";

/** 10.24.0.0/16 in subnets of /24, as the config gives it. */
export const NETWORK = {
  ipv4: {
    network: Prefix.parse("10.24.0.0/16"),
    subnetLength: 24,
    subnetMin: Address.parse("10.24.1.0"),
    subnetMax: Address.parse("10.24.255.0"),
  },
};

/** A logger that keeps what it is told. */
export class MemoryLogger implements Logger {
  readonly lines: string[] = [];
  readonly trace = this.#at("trace");
  readonly debug = this.#at("debug");
  readonly info = this.#at("info");
  readonly warn = this.#at("warn");
  readonly error = this.#at("error");

  child(): Logger {
    return this;
  }

  #at(level: LogLevel): (message: string, fields?: LogFields) => void {
    return (message, fields) => this.lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
  }
}

/** Settings for `endpoints`, with upstream's prefix unless `more` says otherwise. */
export function settingsFor(
  endpoints: readonly string[],
  more: Partial<EtcdOptions> & { readonly user?: readonly [name: string, password: string] } = {},
): EtcdSettings {
  const { user, ...rest } = more;
  return parseEtcdOptions({
    endpoints,
    log: new MemoryLogger(),
    ...(user === undefined ? {} : { username: user[0], password: new Secret(user[1]) }),
    ...rest,
  });
}

/**
 * A test with real etcd. Leaks are not looked for: grpc-js keeps a timer for ten seconds after the
 * last connection of a pool is closed.
 */
export function etcdTest(
  name: string,
  body: (t: Deno.TestContext) => Promise<void>,
  { needs = [] }: { readonly needs?: readonly Tool[] } = {},
): void {
  const obstacle = missingTools(["etcd", "etcdctl", ...needs]);
  Deno.test({
    name: skippable(name, obstacle),
    ignore: obstacle !== undefined,
    fn: body,
    sanitizeOps: false,
    sanitizeResources: false,
  });
}

/** A port on loopback that leads to another one, until it is told to fall silent. */
export class Relay implements Disposable {
  readonly #listener: Deno.TcpListener | Deno.UnixListener;
  readonly #connections = new Set<Deno.Conn>();
  /** Where connections made from now on lead to. */
  targetPort: number;
  #frozen = false;
  #refusing = false;
  #accepted = 0;
  #open = 0;

  /** Listens on a port, or at the path of a unix socket. */
  constructor(
    targetPort: number,
    options: { hostname?: string; port?: number; path?: string } = {},
  ) {
    const { hostname = "127.0.0.1", port = 0, path } = options;
    this.targetPort = targetPort;
    this.#listener = path === undefined
      ? Deno.listen({ hostname, port })
      : Deno.listen({ transport: "unix", path });
    this.#accept();
  }

  get endpoint(): string {
    return `http://${this.address}`;
  }

  /** Host and port. */
  get address(): string {
    const { addr } = this.#listener;
    if (addr.transport !== "tcp") throw new Error("Cannot name a port: it is a unix socket");
    return `${addr.hostname}:${addr.port}`;
  }

  /** Connections taken so far. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Connections that lead to the other port now. */
  get open(): number {
    return this.#open;
  }

  /** From now on bytes vanish in both directions, and no connection is closed. */
  freeze(): void {
    this.#frozen = true;
  }

  /** Closes all connections, and new ones at once. */
  refuse(): void {
    this.#refusing = true;
    this.cut();
  }

  /** New connections pass again; those from before a freeze stay silent. */
  restore(): void {
    this.#frozen = this.#refusing = false;
  }

  /** Closes all connections. */
  cut(): void {
    for (const connection of this.#connections) close(connection);
    this.#connections.clear();
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    this.cut();
  }

  async #accept(): Promise<void> {
    try {
      for await (const local of this.#listener) {
        this.#accepted++;
        this.#connections.add(local);
        if (this.#refusing) close(local);
        else if (!this.#frozen) {
          this.#open++;
          this.#join(local).finally(() => this.#open--);
        }
      }
    } catch { /* closed */ }
  }

  async #join(local: Deno.Conn): Promise<void> {
    let remote: Deno.Conn;
    try {
      remote = await Deno.connect({ hostname: "127.0.0.1", port: this.targetPort });
    } catch {
      return close(local);
    }
    this.#connections.add(remote);
    let silent = false;
    const pump = async (from: Deno.Conn, to: Deno.Conn) => {
      const buffer = new Uint8Array(65536);
      try {
        for (;;) {
          const count = await from.read(buffer);
          if (count === null) break;
          silent ||= this.#frozen;
          if (silent) continue;
          for (let sent = 0; sent < count;) sent += await to.write(buffer.subarray(sent, count));
        }
      } catch { /* closed */ }
      if (!silent) { for (const connection of [from, to]) close(connection); }
    };
    await Promise.all([pump(local, remote), pump(remote, local)]);
  }
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch { /* It is closed already. */ }
}
