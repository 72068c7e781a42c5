/**
 * A real Kubernetes API server on loopback, with an etcd of its own, where `KUBE_TOOLS` names a
 * folder with the programs. It has no controllers: tests say what they would do.
 *
 * @module
 */
import { eventually } from "./eventually.ts";
import { type LoggedProcess, startLogged } from "./logged_process.ts";
import type { NetworkNamespace } from "./namespace.ts";
import { run } from "./run.ts";

/** Why tests that need a real API server cannot run here; `undefined` if they can. */
export function missingKube(): string | undefined {
  const tools = Deno.env.get("KUBE_TOOLS");
  if (!tools) return "KUBE_TOOLS names no folder with the programs of Kubernetes";
  try {
    Deno.statSync(`${tools}/bin/kube-apiserver`);
    return undefined;
  } catch {
    return `there is no ${tools}/bin/kube-apiserver`;
  }
}

/** How a server is started. */
export interface StartKubeOptions {
  readonly signal: AbortSignal;
  /** `3.4` is Debian's, without WatchList. @default {"3.6"} */
  readonly etcd?: "3.4" | "3.6";
  /** Further flags of the API server. */
  readonly flags?: readonly string[];
  /** Where it serves others: in a namespace, at an address of it. @default loopback */
  readonly at?: { readonly namespace: NetworkNamespace; readonly address: string };
}

/** A server. */
export class KubeServer implements AsyncDisposable {
  readonly #directory: string;
  readonly #options: StartKubeOptions;
  readonly #ports: readonly [number, number, number];
  #etcd: LoggedProcess | undefined;
  #api: LoggedProcess | undefined;

  private constructor(directory: string, options: StartKubeOptions) {
    this.#directory = directory;
    this.#options = options;
    this.#ports = [freePort(), freePort(), freePort()];
  }

  /** Starts one, and waits until it serves. */
  static async start(options: StartKubeOptions): Promise<KubeServer> {
    const server = new KubeServer(await Deno.makeTempDir({ prefix: "flanneld-kube-" }), options);
    try {
      await server.#prepare();
      server.startEtcd();
      server.startApi();
      await server.ready();
      return server;
    } catch (error) {
      const log = await Deno.readTextFile(`${server.#directory}/api.log`).catch(() => "");
      await server[Symbol.asyncDispose]();
      throw new Error(`Cannot start an API server: ${log.slice(-2_000)}`, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#api?.kill();
    await this.#etcd?.kill();
    await Deno.remove(this.#directory, { recursive: true });
  }

  get #address(): string {
    return this.#options.at?.address ?? "127.0.0.1";
  }

  get url(): string {
    return `https://${this.#address}:${this.#ports[0]}`;
  }

  /** A kubeconfig of the user that may do everything. */
  get kubeconfig(): string {
    return `${this.#directory}/kubeconfig`;
  }

  get directory(): string {
    return this.#directory;
  }

  /** Resolves once requests are answered. */
  async ready(): Promise<void> {
    await eventually(
      async () => {
        if (this.#api?.ended !== undefined) throw new Error("it has ended");
        return await this.kubectl(["get", "--raw", "/readyz"]) === "ok";
      },
      { signal: this.#options.signal, title: "the API server", timeoutMs: 90_000 },
    );
  }

  startEtcd(): void {
    const [, client, peer] = this.#ports;
    const is34 = this.#options.etcd === "3.4";
    const tools = Deno.env.get("KUBE_TOOLS")!;
    this.#etcd = this.#spawn({
      program: is34 ? "etcd" : `${tools}/bin/etcd-3.6`,
      args: [
        ...["--data-dir", `${this.#directory}/etcd`, "--log-level", "warn"],
        ...is34 ? ["--logger", "zap"] : ["--watch-progress-notify-interval=5s"],
        ...["--unsafe-no-fsync"],
        ...["--listen-client-urls", `http://127.0.0.1:${client}`],
        ...["--advertise-client-urls", `http://127.0.0.1:${client}`],
        ...["--listen-peer-urls", `http://127.0.0.1:${peer}`],
        ...["--initial-advertise-peer-urls", `http://127.0.0.1:${peer}`],
        ...["--initial-cluster", `default=http://127.0.0.1:${peer}`],
      ],
    }, "etcd");
  }

  /** Ends etcd under the running API server. */
  async killEtcd(): Promise<void> {
    await this.#etcd?.kill();
  }

  startApi(): void {
    const at = (file: string) => `${this.#directory}/${file}`;
    this.#api = this.#spawn({
      program: `${Deno.env.get("KUBE_TOOLS")}/bin/kube-apiserver`,
      args: [
        `--etcd-servers=http://127.0.0.1:${this.#ports[1]}`,
        `--secure-port=${this.#ports[0]}`,
        ...[`--bind-address=${this.#address}`, `--advertise-address=${this.#address}`],
        `--cert-dir=${at("certs")}`,
        `--token-auth-file=${at("tokens.csv")}`,
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        `--service-account-key-file=${at("sa.key")}`,
        `--service-account-signing-key-file=${at("sa.key")}`,
        "--service-cluster-ip-range=10.96.0.0/16",
        "--disable-admission-plugins=ServiceAccount",
        `--tls-cert-file=${at("server.crt")}`,
        `--tls-private-key-file=${at("server.key")}`,
        ...this.#options.flags ?? [],
      ],
    }, "api");
  }

  #spawn(
    { program, args }: { readonly program: string; readonly args: readonly string[] },
    title: string,
  ): LoggedProcess {
    const command = this.#options.at?.namespace.command(program, args) ?? { program, args };
    return startLogged(command, {
      title,
      logFile: `${this.#directory}/${title}.log`,
      env: environment(),
    });
  }

  /** Runs kubectl as the administrator; returns what it printed. */
  async kubectl(args: readonly string[], object?: unknown): Promise<string> {
    const { at, signal } = this.#options;
    const all = ["--kubeconfig", this.kubeconfig, ...args];
    const program = `${Deno.env.get("KUBE_TOOLS")}/bin/kubectl`;
    const command = at?.namespace.command(program, all) ?? { program, args: all };
    const stdin = object === undefined ? {} : { stdin: JSON.stringify(object) };
    return await run(command.program, command.args, { signal, ...stdin });
  }

  /** Ends the API server as a power cut would. */
  async killApi(): Promise<void> {
    await this.#api?.kill();
  }

  /** A request of the administrator to a server on loopback. */
  async request(method: string, path: string, body?: unknown): Promise<Response> {
    const client = Deno.createHttpClient({
      caCerts: [await Deno.readTextFile(`${this.#directory}/ca.crt`)],
      http2: false,
    });
    try {
      const response = await fetch(`${this.url}${path}`, {
        method,
        client,
        headers: {
          authorization: "Bearer admintoken",
          "content-type": method === "PATCH"
            ? "application/strategic-merge-patch+json"
            : "application/json",
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      return new Response(text, { status: response.status, headers: response.headers });
    } finally {
      client.close();
    }
  }

  async #prepare(): Promise<void> {
    const at = (file: string) => `${this.#directory}/${file}`;
    const { signal } = this.#options;
    const openssl = (...args: string[]) => run("openssl", args, { signal });
    await openssl("genrsa", "-out", at("sa.key"), "2048");
    const subject = ["-subj", "/CN=test-ca", "-days", "2"];
    const key = ["-newkey", "rsa:2048", "-nodes"];
    await openssl(
      "req",
      "-x509",
      ...key,
      "-keyout",
      at("ca.key"),
      "-out",
      at("ca.crt"),
      ...subject,
    );
    await openssl(
      ...["req", ...key, "-keyout", at("server.key"), "-out", at("server.csr")],
      ...["-subj", "/CN=kube-apiserver"],
    );
    await Deno.writeTextFile(at("names"), `subjectAltName=IP:${this.#address}\n`);
    await openssl(
      ...["x509", "-req", "-in", at("server.csr"), "-CA", at("ca.crt"), "-CAkey", at("ca.key")],
      ...["-CAcreateserial", "-days", "2", "-extfile", at("names"), "-out", at("server.crt")],
    );
    await Deno.writeTextFile(
      at("tokens.csv"),
      'admintoken,admin,1,"system:masters"\nflanneltoken,flannel,2\nnobodytoken,nobody,3\n',
    );
    await Deno.writeTextFile(this.kubeconfig, this.kubeconfigOf("admintoken"));
  }

  /** A kubeconfig for the user of a token. */
  kubeconfigOf(token: string): string {
    return `apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster: {server: "${this.url}", certificate-authority: ca.crt}
users:
- name: test
  user: {token: ${token}}
contexts:
- name: test
  context: {cluster: test, user: test, namespace: default}
`;
  }
}

function environment(): Record<string, string> {
  return { PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin" };
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}
