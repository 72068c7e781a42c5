/**
 * A process of {@linkcode startLossProbe}: `udp_probe.ts echo <address> <port>` sends every datagram
 * that comes for that address back; `udp_probe.ts send <address> <port> <interval ms>` sends numbered ones at that pace until
 * SIGTERM, waits for the last answers and prints a report as one line of JSON.
 *
 * @module
 */
import dgram from "node:dgram";
import type { ProbeReport } from "./loss_probe.ts";

/** How long after the last datagram its answer may come. */
const STRAGGLE_MS = 500;

if (import.meta.main) {
  const [mode, ...args] = Deno.args;
  if (mode === "echo") echo(args[0]!, Number(args[1]));
  else send(args[0]!, Number(args[1]), Number(args[2]));
}

function openSocket(address: string): dgram.Socket {
  // Not with `recvBufferSize`: Deno 2.9 takes a buffer of that size for each datagram as well.
  return dgram.createSocket(address.includes(":") ? "udp6" : "udp4");
}

function echo(address: string, port: number): void {
  const socket = openSocket(address);
  socket.on("message", (message, peer) => socket.send(message, peer.port, peer.address));
  socket.bind(port, address, () => print("ready"));
}

function send(address: string, port: number, intervalMs: number): void {
  const socket = openSocket(address);
  const answered: boolean[] = [];
  socket.on("message", (message) => answered[message.readUInt32BE(0)] = true);
  // A datagram that finds no way out is lost like one that is dropped further on.
  socket.on("error", () => {});
  socket.bind(0, () => print("ready"));
  const startedAt = performance.now();
  const timer = setInterval(() => {
    // Timers come late on a busy machine: what is due by now is sent now.
    const due = Math.floor((performance.now() - startedAt) / intervalMs);
    while (answered.length < due) {
      const message = new Uint8Array(64);
      new DataView(message.buffer).setUint32(0, answered.length);
      answered.push(false);
      socket.send(message, port, address, () => {});
    }
  }, 1);
  Deno.addSignalListener("SIGTERM", () => {
    clearInterval(timer);
    setTimeout(() => {
      print(JSON.stringify(report(answered, intervalMs)));
      Deno.exit(0);
    }, STRAGGLE_MS);
  });
}

function report(answered: readonly boolean[], intervalMs: number): ProbeReport {
  let longest = 0;
  let current = 0;
  for (const came of answered) {
    current = came ? 0 : current + 1;
    longest = Math.max(longest, current);
  }
  const lost = answered.filter((came) => !came).length;
  return { sent: answered.length, unanswered: lost, longestGapMs: longest * intervalMs };
}

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}
