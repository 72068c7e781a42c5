/** Two tunnels between namespaces, without daemons, as tests have them. */
import assert from "node:assert/strict";
import { denoEnvironment } from "../lab/mod.ts";
import type { NamespaceSet, NetworkNamespace } from "../support/namespace.ts";
import type { ProcessPeer, TunnelProcessCommand, TunnelProcessSetup } from "./tunnel_process.ts";

const PORT = 8285;

/** A tunnel's process, which can be asked. */
export class TunnelProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor(namespace: NetworkNamespace, setup: TunnelProcessSetup) {
    const script = new URL("./tunnel_process.ts", import.meta.url).pathname;
    const command = namespace.command(Deno.execPath(), [
      ...["run", "-A", "--cached-only", script, JSON.stringify(setup)],
    ]);
    this.#child = new Deno.Command(command.program, {
      args: command.args,
      env: denoEnvironment(),
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** What it says next, notices for people apart. */
  async answer(): Promise<Record<string, number>> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("the tunnel has ended");
      this.#rest += value;
    }
    const [line] = this.#rest.split("\n", 1);
    this.#rest = this.#rest.slice(line!.length + 1);
    const answer = JSON.parse(line!);
    return "notice" in answer ? await this.answer() : answer;
  }

  async ask(command: TunnelProcessCommand): Promise<Record<string, number>> {
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(command)}\n`));
    return await this.answer();
  }

  /** Ends it in order; answers how long its Worker took. */
  async stop(): Promise<number> {
    await this.#writer.close();
    const { stoppedAfterMs } = await this.answer();
    await this.#child.status;
    await this.#lines.cancel();
    return stoppedAfterMs!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await this.#child.status;
    await this.#writer.close().catch(() => {});
    await this.#lines.cancel().catch(() => {});
  }
}

/** Two namespaces with a veth `v0` between them, and a tunnel process in each. */
export async function openPair(
  set: NamespaceSet,
  stack: AsyncDisposableStack,
  signal: AbortSignal,
  options: Partial<TunnelProcessSetup> = {},
): Promise<{ namespaces: NetworkNamespace[]; tunnels: TunnelProcess[] }> {
  const namespaces = await set.add(["a", "b"], { signal });
  const [a, b] = namespaces;
  await a!.ip([`link add v0 type veth peer name v0 netns ${b!.name}`], { signal });
  const tunnels: TunnelProcess[] = [];
  for (const [namespace, own, other] of [[a!, 1, 2], [b!, 2, 1]] as const) {
    await namespace.ip([`address add 192.0.2.${own}/24 dev v0`, "link set v0 up"], { signal });
    const tunnel = stack.use(
      new TunnelProcess(namespace, {
        link: "flannel0",
        mtuBytes: 1472,
        local: `192.0.2.${own}`,
        port: PORT,
        base: `10.24.${own}.0`,
        peers: [peer(other)],
        ...options,
      }),
    );
    assert.ok((await tunnel.answer())["ready"]);
    await namespace.ip([
      "link set flannel0 mtu 1472 up",
      `address add 10.24.${own}.0/32 dev flannel0`,
      "route add 10.24.0.0/16 dev flannel0",
    ], { signal });
    tunnels.push(tunnel);
  }
  return { namespaces, tunnels };
}

/** The tunnel process in namespace `number`, as the other one knows it. */
export function peer(number: number): ProcessPeer {
  return { prefix: `10.24.${number}.0/24`, address: `192.0.2.${number}`, port: PORT };
}
