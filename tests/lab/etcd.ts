import { eventually } from "../support/eventually.ts";
import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import type { NetworkNamespace } from "../support/namespace.ts";
import type { Port } from "./vpc_router.ts";

/** How a cluster is run. */
export interface EtcdOptions {
  /** @default {1} */
  readonly members?: number;
  /** Serves the v2 keys API as well. @default {false} */
  readonly v2?: boolean;
  /** Further flags of etcd(1), for each member. */
  readonly flags?: readonly string[];
}

/** One etcd server in a namespace of its own. */
export class EtcdMember {
  readonly label: string;
  readonly port: Port;
  readonly namespace: NetworkNamespace;
  readonly #directory: string;
  readonly #flags: readonly string[];
  #process: LoggedProcess | undefined;

  constructor(
    label: string,
    port: Port,
    namespace: NetworkNamespace,
    directory: string,
    flags: readonly string[],
  ) {
    this.label = label;
    this.port = port;
    this.namespace = namespace;
    this.#directory = directory;
    this.#flags = flags;
  }

  get endpoint(): string {
    return `http://${urlHost(this.port)}:2379`;
  }

  get running(): boolean {
    return this.#process !== undefined && this.#process.ended === undefined;
  }

  /** Starts the server with the data it had; does not wait for it to serve. */
  start(): void {
    if (this.running) throw new Error(`Cannot start ${this.label}: it is running`);
    this.#process = startLogged(this.namespace.command("etcd", [...this.#flags]), {
      title: this.label,
      logFile: `${this.#directory}/${this.label}.log`,
      env: {
        PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin",
        // etcd 3.4 refuses to run on arm64 without being told that this is meant.
        ...(Deno.build.arch === "aarch64" ? { ETCD_UNSUPPORTED_ARCH: "arm64" } : {}),
      },
    });
  }

  /** Ends the server in order. */
  async stop(): Promise<void> {
    await this.#process?.stop();
  }

  /** Ends the server as a power failure would. */
  async kill(): Promise<void> {
    await this.#process?.kill();
  }

  /** Saves a backup; answers its path. */
  async backUp(options: { signal: AbortSignal }): Promise<string> {
    const path = `${this.#directory}/${this.label}.backup`;
    await this.ctl(["snapshot", "save", path], options);
    return path;
  }

  /**
   * Puts a backup in the place of the data, as an operator does: the cluster's id stays, as name,
   * peers and token do. To be called while the server does not run, of a cluster of one.
   */
  async restore(backup: string, options: { signal: AbortSignal }): Promise<void> {
    await this.empty();
    const kept = ["--name", "--data-dir", "--initial-advertise-peer-urls", "--initial-cluster"];
    const flags = [...kept, "--initial-cluster-token"].flatMap((flag) => {
      return [flag, this.#flags[this.#flags.indexOf(flag) + 1]!];
    });
    await this.ctl(["snapshot", "restore", backup, ...flags], options);
  }

  /** Deletes the data. To be called while the server does not run. */
  async empty(): Promise<void> {
    await Deno.remove(`${this.#directory}/${this.label}.data`, { recursive: true });
  }

  /** The end of its log, for a message to a person. */
  tail(): string {
    return this.#process?.tail() ?? `  ${this.label} was never started`;
  }

  /** Runs etcdctl against this server, from inside its namespace. */
  ctl(
    args: readonly string[],
    options: { signal: AbortSignal; api?: 2 | 3 },
  ): Promise<string> {
    const { signal, api = 3 } = options;
    return this.namespace.run("etcdctl", ["--endpoints", this.endpoint, ...args], {
      signal,
      env: { ETCDCTL_API: String(api) },
    });
  }
}

/** A cluster of one or three members, by {@linkcode EtcdOptions}. */
export class EtcdCluster implements AsyncDisposable {
  readonly members: readonly EtcdMember[];

  constructor(
    machines: readonly { readonly port: Port; readonly namespace: NetworkNamespace }[],
    directory: string,
    options: EtcdOptions,
  ) {
    const names = machines.map((_, index) => `etcd${index + 1}`);
    const peer = (index: number) => `http://${urlHost(machines[index]!.port)}:2380`;
    const cluster = names.map((name, index) => `${name}=${peer(index)}`).join(",");
    this.members = machines.map(({ port, namespace }, index) =>
      new EtcdMember(names[index]!, port, namespace, directory, [
        ...["--name", names[index]!, "--data-dir", `${directory}/${names[index]}.data`],
        ...["--listen-client-urls", `http://${urlHost(port)}:2379`],
        ...["--advertise-client-urls", `http://${urlHost(port)}:2379`],
        ...["--listen-peer-urls", peer(index), "--initial-advertise-peer-urls", peer(index)],
        ...["--initial-cluster", cluster, "--initial-cluster-token", "lab"],
        `--enable-v2=${options.v2 ?? false}`,
        ...(options.flags ?? []),
      ])
    );
  }

  /** Client URLs, in the order of the members. */
  get endpoints(): string[] {
    return this.members.map(({ endpoint }) => endpoint);
  }

  /** Starts the members that do not run and waits until each of them serves. */
  async start(options: { signal: AbortSignal }): Promise<void> {
    for (const member of this.members) if (!member.running) member.start();
    await this.healthy(options);
  }

  /**
   * Waits until each member serves.
   *
   * @throws {Error} With the end of its log, if a member does not run.
   */
  async healthy(options: { signal: AbortSignal }): Promise<void> {
    await Promise.all(this.members.map(async (member) => {
      const state = await eventually(async () => {
        if (!member.running) return "ended";
        // Short limits, as a client that was refused once waits a second before its next try.
        await member.ctl(
          ["--dial-timeout=300ms", "--command-timeout=300ms", "endpoint", "health"],
          options,
        );
        return "serves";
      }, { ...options, title: `${member.label} to serve`, intervalMs: 50 });
      if (state === "ended") throw new Error(`${member.label} has ended:\n${member.tail()}`);
    }));
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.stop()));
  }

  async kill(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
  }

  /** Runs etcdctl against the first member that runs. */
  ctl(args: readonly string[], options: { signal: AbortSignal; api?: 2 | 3 }): Promise<string> {
    const member = this.members.find((each) => each.running);
    if (!member) throw new Error("Cannot run etcdctl: no member of the cluster is running");
    return member.ctl(args, options);
  }

  /** Writes `value` to `key` through the v3 or the v2 API. */
  async put(
    key: string,
    value: string,
    options: { signal: AbortSignal; api?: 2 | 3 },
  ): Promise<void> {
    await this.ctl([options.api === 2 ? "set" : "put", key, value], options);
  }

  /**
   * Applies up to 128 commands such as `put <key> <value>` and `del <key>` at one revision; keys
   * may not repeat.
   */
  async transact(
    commands: readonly string[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    const member = this.members.find((each) => each.running);
    if (!member) throw new Error("Cannot run etcdctl: no member of the cluster is running");
    const lines = commands.map((command) =>
      command.replace(/^(put \S+ )(.*)$/, (_, put, value) => `${put}${JSON.stringify(value)}`)
    );
    // Nothing is compared; nothing happens otherwise.
    await member.namespace.run("etcdctl", ["--endpoints", member.endpoint, "txn"], {
      ...options,
      env: { ETCDCTL_API: "3" },
      stdin: `\n${lines.join("\n")}\n\n\n`,
    });
  }

  /** The v3 keys that begin with `prefix`, with their values. */
  async list(prefix: string, options: { signal: AbortSignal }): Promise<Map<string, string>> {
    const text = await this.ctl(["get", "--prefix", "-w", "json", prefix], options);
    const { kvs = [] } = JSON.parse(text) as { kvs?: { key: string; value?: string }[] };
    return new Map(kvs.map(({ key, value }) => [fromBase64(key), fromBase64(value ?? "")]));
  }

  /** Forgets all history before the present revision; returns that revision. */
  async compact(options: { signal: AbortSignal }): Promise<number> {
    const text = await this.ctl(["get", "/", "-w", "json"], options);
    const { header } = JSON.parse(text) as { header: { revision: number } };
    await this.ctl(["compaction", "--physical", String(header.revision)], options);
    return header.revision;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** The address of `port` as the host of a URL. */
function urlHost({ address }: Port): string {
  return address.includes(":") ? `[${address}]` : address;
}

function fromBase64(text: string): string {
  return new TextDecoder().decode(Uint8Array.fromBase64(text));
}
