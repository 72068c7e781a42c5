/**
 * Real etcd servers on loopback, for tests of the stores.
 *
 * @module
 */
import { eventually } from "./eventually.ts";
import { type LoggedProcess, startLogged } from "./logged_process.ts";
import { run } from "./run.ts";

/** TLS of the client port. */
export interface EtcdTls {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
  /** Whether clients have to show a certificate of the CA. */
  readonly clientCertificate: boolean;
  /** The certificate and key that etcdctl shows. */
  readonly clientCertFile?: string;
  readonly clientKeyFile?: string;
}

/** How servers are started. */
export interface StartEtcdOptions {
  readonly signal: AbortSignal;
  /** @default {1} */
  readonly members?: number;
  readonly tls?: EtcdTls;
  /** Further flags of etcd(1). */
  readonly flags?: readonly string[];
}

/** One server. Disposing its cluster ends it. */
export class EtcdServer {
  readonly name: string;
  readonly port: number;
  readonly peerPort: number;
  readonly tls: EtcdTls | undefined;
  readonly #directory: string;
  #flags: readonly string[] = [];
  #process: LoggedProcess | undefined;

  constructor(name: string, ports: [number, number], directory: string, tls: EtcdTls | undefined) {
    this.name = name;
    [this.port, this.peerPort] = ports;
    this.#directory = directory;
    this.tls = tls;
  }

  get endpoint(): string {
    return `${this.tls === undefined ? "http" : "https"}://127.0.0.1:${this.port}`;
  }

  get peerUrl(): string {
    return `http://127.0.0.1:${this.peerPort}`;
  }

  get running(): boolean {
    return this.#process !== undefined && this.#process.ended === undefined;
  }

  /** Starts the server with the data it had; does not wait for it to serve. */
  start(flags: readonly string[] = this.#flags): void {
    this.#flags = flags;
    const { tls } = this;
    const args = [
      ...["--name", this.name, "--data-dir", `${this.#directory}/${this.name}`],
      ...["--listen-client-urls", this.endpoint, "--advertise-client-urls", this.endpoint],
      ...["--listen-peer-urls", this.peerUrl, "--initial-advertise-peer-urls", this.peerUrl],
      ...["--log-level", "warn", "--logger", "zap"],
      ...(tls === undefined ? [] : ["--cert-file", tls.certFile, "--key-file", tls.keyFile]),
      ...(tls?.clientCertificate ? ["--client-cert-auth", "--trusted-ca-file", tls.caFile] : []),
      ...flags,
    ];
    this.#process = startLogged({ program: "etcd", args }, {
      title: this.name,
      logFile: `${this.#directory}/${this.name}.log`,
      env: {
        PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin",
        ...(Deno.build.arch === "aarch64" ? { ETCD_UNSUPPORTED_ARCH: "arm64" } : {}),
      },
    });
  }

  /** Ends it in order, as an upgrade does. */
  async stop(): Promise<void> {
    await this.#process?.stop();
  }

  /** Ends it as a power failure would. */
  async kill(): Promise<void> {
    this.signal("SIGCONT");
    await this.#process?.kill();
  }

  /** Saves a backup; answers its path. */
  async backUp(options: { readonly signal: AbortSignal }): Promise<string> {
    const path = `${this.#directory}/${this.name}.backup`;
    await this.ctl(["snapshot", "save", path], options);
    return path;
  }

  /**
   * Puts a backup in the place of the data, as an operator does: the cluster's id stays, as name,
   * peers and token do. To be called while the server does not run, of a cluster of one.
   */
  async restore(backup: string, options: { readonly signal: AbortSignal }): Promise<void> {
    await this.empty();
    await this.ctl([
      ...["snapshot", "restore", backup, "--name", this.name],
      ...["--data-dir", `${this.#directory}/${this.name}`],
      ...["--initial-cluster", `${this.name}=${this.peerUrl}`],
      ...["--initial-advertise-peer-urls", this.peerUrl],
    ], options);
  }

  /** Deletes the data. To be called while the server does not run. */
  async empty(): Promise<void> {
    await Deno.remove(`${this.#directory}/${this.name}`, { recursive: true });
  }

  /** SIGSTOP makes it silent without closing anything; SIGCONT lets it go on. */
  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#process?.signal(signal);
  }

  /** Runs etcdctl against this server. */
  ctl(
    args: readonly string[],
    options: { readonly signal: AbortSignal; readonly api?: 2 | 3 },
  ): Promise<string> {
    const { tls } = this;
    const { api = 3, signal } = options;
    const [ca, cert, key] = api === 3
      ? ["--cacert", "--cert", "--key"]
      : ["--ca-file", "--cert-file", "--key-file"];
    const flags = tls === undefined ? [] : [ca!, tls.caFile];
    if (tls?.clientCertFile !== undefined) flags.push(cert!, tls.clientCertFile);
    if (tls?.clientKeyFile !== undefined) flags.push(key!, tls.clientKeyFile);
    return run("etcdctl", ["--endpoints", this.endpoint, ...flags, ...args], {
      signal,
      env: { ETCDCTL_API: String(api) },
    });
  }

  /** Waits until it serves. */
  async ready(options: { readonly signal: AbortSignal }): Promise<void> {
    // This one needs no user where authentication is on.
    const args = ["--dial-timeout=500ms", "--command-timeout=1s", "endpoint", "status"];
    await eventually(async () => {
      if (!this.running) return "ended" as const;
      await this.ctl(args, options);
      return "serves" as const;
    }, { ...options, title: `${this.name} to serve`, intervalMs: 100 }).then((state) => {
      if (state === "ended") throw new Error(`${this.name} has ended:\n${this.#process?.tail()}`);
    });
  }
}

/** A cluster of etcd on loopback, with its data in a directory of its own. */
export class EtcdServers implements AsyncDisposable {
  readonly members: readonly EtcdServer[];
  readonly #directory: string;

  private constructor(members: readonly EtcdServer[], directory: string) {
    this.members = members;
    this.#directory = directory;
  }

  /** Starts a cluster on ports that were free a moment ago, and waits until it serves. */
  static async start(options: StartEtcdOptions): Promise<EtcdServers> {
    for (let attempt = 1;; attempt++) {
      const cluster = await EtcdServers.#prepare(options);
      try {
        await cluster.ready(options);
        return cluster;
      } catch (error) {
        await cluster[Symbol.asyncDispose]();
        // Someone else may have taken a port in the meantime.
        if (attempt === 3 || !/address already in use/.test(String(error))) throw error;
      }
    }
  }

  static async #prepare(options: StartEtcdOptions): Promise<EtcdServers> {
    const directory = await Deno.makeTempDir({ prefix: "flanneld-test-etcd-" });
    const ports = freePorts(2 * (options.members ?? 1));
    const members = Array.from({ length: options.members ?? 1 }, (_, index) => {
      const pair: [number, number] = [ports[2 * index]!, ports[2 * index + 1]!];
      return new EtcdServer(`etcd${index + 1}`, pair, directory, options.tls);
    });
    const cluster = members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
    for (const member of members) {
      member.start([
        ...["--initial-cluster", cluster, "--unsafe-no-fsync"],
        ...(options.flags ?? []),
      ]);
    }
    return new EtcdServers(members, directory);
  }

  get endpoints(): string[] {
    return this.members.map(({ endpoint }) => endpoint);
  }

  /** The first member that runs. */
  get any(): EtcdServer {
    const member = this.members.find(({ running }) => running);
    if (member === undefined) throw new Error("Cannot find a member of etcd that runs");
    return member;
  }

  async ready(options: { readonly signal: AbortSignal }): Promise<void> {
    await Promise.all(this.members.map((member) => member.ready(options)));
  }

  /** The member that leads. */
  async leader(options: { readonly signal: AbortSignal }): Promise<EtcdServer> {
    return await eventually(async () => {
      for (const member of this.members.filter(({ running }) => running)) {
        const [status] = JSON.parse(
          await member.ctl(["endpoint", "status", "-w", "json"], options),
        );
        const { leader, header } = status.Status;
        if (leader !== 0 && leader === header.member_id) return member;
      }
      return undefined;
    }, { ...options, title: "a leader" });
  }

  /** Forgets all history before the present revision. */
  async compact(options: { readonly signal: AbortSignal }): Promise<void> {
    const { header } = JSON.parse(await this.any.ctl(["get", "/", "-w", "json"], options));
    await this.any.ctl(["compaction", "--physical", String(header.revision)], options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    await Deno.remove(this.#directory, { recursive: true });
  }
}

/** Ports of loopback that nobody listens on at the moment. */
function freePorts(count: number): number[] {
  using stack = new DisposableStack();
  return Array.from({ length: count }, () => {
    return stack.use(Deno.listen({ hostname: "127.0.0.1", port: 0 })).addr.port;
  });
}
