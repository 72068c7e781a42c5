/** Two tunnels between namespaces, without daemons. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { denoEnvironment, labTest, startLossProbe } from "../lab/mod.ts";
import { type NamespaceSet, type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import type { ProcessPeer, TunnelProcessCommand, TunnelProcessSetup } from "./tunnel_process.ts";

const PORT = 8285;

/** A tunnel's process, which can be asked. */
class TunnelProcess implements AsyncDisposable {
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

  async answer(): Promise<Record<string, number>> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("the tunnel has ended");
      this.#rest += value;
    }
    const [line] = this.#rest.split("\n", 1);
    this.#rest = this.#rest.slice(line!.length + 1);
    return JSON.parse(line!);
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

async function openPair(
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

function peer(number: number): ProcessPeer {
  return { prefix: `10.24.${number}.0/24`, address: `192.0.2.${number}`, port: PORT };
}

/** Peers of other networks. */
function crowd(count: number, first: number): ProcessPeer[] {
  return Array.from({ length: count }, (_, i) => ({
    prefix: `10.${100 + (i >> 8)}.${i & 255}.0/24`,
    address: `198.18.${i >> 8}.${i & 255}`,
    port: first,
  }));
}

for (const workers of [1, 2] as const) {
  labTest(
    `a tunnel of ${workers} Worker(s) loses nothing while thousands of peers come and go`,
    async ({ signal }) => {
      await using set = await openNamespaces({ signal });
      await using stack = new AsyncDisposableStack();
      const { namespaces, tunnels } = await openPair(set, stack, signal, { workers });
      const [from, to] = namespaces.map((namespace, i) => ({
        label: `end${i}`,
        address: `10.24.${i + 1}.0`,
        namespace,
      }));
      await using probe = await startLossProbe(from!, to!, { signal, directory: set.directory });
      for (let round = 0; round < 20; round++) {
        for (const [i, tunnel] of tunnels.entries()) {
          const others = crowd(round % 2 === 0 ? 10_000 : 10, 1 + round);
          await tunnel.ask({ command: "peers", peers: [...others, peer(2 - i)] });
        }
        await delay(50, { signal });
      }
      const { sent, lost } = await probe.stop({ signal });
      assert.ok(sent > 500);
      assert.equal(lost, 0);
      for (const tunnel of tunnels) {
        const { dropNoPeer, dropUnknownSender, dropForeignSource } = await tunnel.ask({
          command: "counters",
        });
        assert.deepEqual([dropNoPeer, dropUnknownSender, dropForeignSource], [0, 0, 0]);
        assert.ok(await tunnel.stop() < 1_000);
      }
    },
  );
}

labTest("a tunnel drops, counts and goes on when its queues are full", async ({ signal }) => {
  await using set = await openNamespaces({ signal });
  await using stack = new AsyncDisposableStack();
  const { namespaces: [a, b], tunnels } = await openPair(set, stack, signal);
  // What the far end cannot take any more is lost there; neither side stands still.
  const flood = await a!.try("ping", [
    ...["-f", "-q", "-s", "1400", "-w", "3", "-l", "1000", "10.24.2.0"],
  ], { signal });
  assert.match(flood.stdout, /packets transmitted/);
  const answered = await b!.run("ping", ["-c", "3", "-i", "0.2", "-q", "10.24.1.0"], { signal });
  assert.match(answered, / 0% packet loss/);
  const counters = await tunnels[0]!.ask({ command: "counters" });
  assert.ok(counters["sentPackets"]! > 1_000);
  for (const tunnel of tunnels) assert.ok(await tunnel.stop() < 1_000);
});
