/**
 * A tunnel without a daemon around it, for tests and benchmarks: its setup is the first argument,
 * as JSON. Each line on standard input is a command; each answer is a line of JSON. It ends with
 * its standard input.
 *
 * @module
 */
import { Libc } from "../../ffi/libc/open.ts";
import { openTunQueue, openUdpSocket, setTransmitQueueLength } from "../../ffi/tun/open.ts";
import {
  openTunnel,
  SOCKET_BUFFER_BYTES,
  TRANSMIT_QUEUE_PACKETS,
} from "../../src/dataplane/tunnel.ts";
import { Address, Prefix } from "../../src/net/mod.ts";

/** A peer in {@linkcode TunnelProcessSetup}. */
export interface ProcessPeer {
  readonly prefix: string;
  readonly address: string;
  readonly port: number;
}

/** What the process is started with. */
export interface TunnelProcessSetup {
  readonly link: string;
  readonly mtuBytes: number;
  readonly local: string;
  readonly localV6?: string;
  readonly port: number;
  readonly base: string;
  readonly baseV6?: string;
  readonly peers: readonly ProcessPeer[];
  readonly allowAnySource?: boolean;
  readonly natTraversal?: boolean;
}

/** A command on standard input. */
export type TunnelProcessCommand =
  | { readonly command: "counters" }
  | { readonly command: "entries" }
  | { readonly command: "peers"; readonly peers: readonly ProcessPeer[] };

if (import.meta.main) await main(JSON.parse(Deno.args[0]!));

async function main(setup: TunnelProcessSetup): Promise<void> {
  const { signal } = new AbortController();
  using libc = Libc.open();
  const tun = openTunQueue(libc, setup.link);
  setTransmitQueueLength(libc, setup.link, TRANSMIT_QUEUE_PACKETS);
  const socket = (address: string) =>
    openUdpSocket(libc, {
      address: Address.parse(address).toBytes(),
      port: setup.port,
      bufferBytes: SOCKET_BUFFER_BYTES,
    });
  const socketV4 = socket(setup.local);
  const socketV6 = setup.localV6 === undefined ? undefined : socket(setup.localV6);
  const tunnel = openTunnel({
    allowAnySource: setup.allowAnySource ?? false,
    natTraversal: setup.natTraversal ?? false,
    families: setup.baseV6 === undefined ? [4] : [4, 6],
    onNotice: (text) => print({ notice: text }),
    onDeviceGone: () => print({ deviceGone: true }),
    onFault(error) {
      throw error;
    },
  });
  tunnel.setIdentity({
    mtuBytes: setup.mtuBytes,
    ipv4: Address.parse(setup.base),
    ...(setup.baseV6 === undefined ? {} : { ipv6: Address.parse(setup.baseV6) }),
  });
  await tunnel.forwarding.replace(entries(setup.peers), { signal });
  await tunnel.setDescriptors({ tun, socketV4, socketV6 }, { signal });
  tunnel.start(tun.offloads);
  print({ ready: true, offloads: tun.offloads, rss: Deno.memoryUsage().rss });

  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  let rest = "";
  for await (const chunk of lines) {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop()!;
    for (const line of parts) {
      const command: TunnelProcessCommand = JSON.parse(line);
      if (command.command === "counters") print({ ...tunnel.counters() });
      else if (command.command === "entries") print({ entries: tunnel.forwarding.entries() });
      else {
        const startedAt = performance.now();
        await tunnel.forwarding.replace(entries(command.peers), { signal });
        print({ tookMs: performance.now() - startedAt });
      }
    }
  }
  const startedAt = performance.now();
  await tunnel[Symbol.asyncDispose]();
  print({ stoppedAfterMs: performance.now() - startedAt });
}

function entries(peers: readonly ProcessPeer[]) {
  return peers.map(({ prefix, address, port }) => ({
    prefix: Prefix.parse(prefix),
    address: Address.parse(address),
    port,
  }));
}

function print(answer: unknown): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${JSON.stringify(answer)}\n`));
}
