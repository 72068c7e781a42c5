/** SendBatch with real sockets on loopback and a kernel that is in trouble now and then. */
import assert from "node:assert/strict";
import { Libc } from "../../ffi/libc/open.ts";
import { openUdpSocket } from "../../ffi/tun/open.ts";
import { addressOf, Errno, PacketIo } from "../../ffi/tun/packet_io.ts";
import { createForwardingMemory, ForwardingReader } from "../../src/dataplane/forwarding_reader.ts";
import { addressWords, ForwardingTable } from "../../src/dataplane/forwarding_table.ts";
import { PacketMemory } from "../../src/dataplane/packet.ts";
import { SendBatch, type SendBatchOptions } from "../../src/dataplane/send_batch.ts";
import {
  type Counters,
  createCounterMemory,
  readCounters,
} from "../../src/dataplane/shared_state.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { DatagramPeer } from "./datagrams.ts";

const { signal } = new AbortController();
/** Not permitted: what a packet filter's "drop" on the way out gives. */
const EPERM = 1;

/** What a call does: fails with an error number, or takes at most so many messages. */
type Step = { readonly errno: number } | { readonly most: number };

/** The kernel, after the steps of a script. */
class TroubledIo implements Disposable {
  readonly #io = new PacketIo();
  #errno: number | undefined;
  script: Step[] = [];
  waits = 0;

  readonly sendmmsg: SendBatchOptions["io"]["sendmmsg"] = (fd, messages, count, flags) => {
    const step = this.script.shift();
    this.#errno = undefined;
    if (step && "errno" in step) {
      this.#errno = step.errno;
      return -1;
    }
    return this.#io.sendmmsg(fd, messages, Math.min(step?.most ?? count, count), flags);
  };

  readonly poll: SendBatchOptions["io"]["poll"] = (set, count, timeoutMs) => {
    this.waits++;
    return this.#io.poll(set, count, timeoutMs);
  };

  errno(): number {
    return this.#errno ?? this.#io.errno();
  }

  [Symbol.dispose](): void {
    this.#io[Symbol.dispose]();
  }
}

/** A batch with two peers, at 127.0.0.2 and 127.0.0.3. */
class Sender implements AsyncDisposable {
  readonly io = new TroubledIo();
  readonly notices: string[] = [];
  readonly batch: SendBatch;
  readonly #libc = Libc.open();
  readonly #counterMemory = createCounterMemory();
  readonly #reader: ForwardingReader;
  readonly #memory = new PacketMemory(65_536);
  readonly #socket: ReturnType<typeof openUdpSocket>;
  readonly peers: readonly DatagramPeer[];
  #next = 0;

  private constructor(peers: readonly DatagramPeer[], forwardingMemory: SharedArrayBuffer) {
    this.peers = peers;
    this.#reader = new ForwardingReader(forwardingMemory);
    this.#reader.begin();
    this.#socket = openUdpSocket(this.#libc, {
      address: Uint8Array.of(127, 0, 0, 1),
      port: 0,
      bufferBytes: 1 << 20,
    });
    this.batch = new SendBatch({
      io: this.io,
      reader: this.#reader,
      counters: new Float64Array(this.#counterMemory),
      family: 4,
      memoryAddress: addressOf(this.#memory.bytes),
      eventfd: -1,
      onNotice: (text) => this.notices.push(text),
    });
    this.batch.setSocket(this.#socket.fd, this.#socket.sendsRuns);
  }

  static async open(): Promise<Sender> {
    const memory = createForwardingMemory();
    const peers = [await DatagramPeer.open("127.0.0.2"), await DatagramPeer.open("127.0.0.3")];
    await new ForwardingTable(memory).replace(
      peers.map(({ port }, i) => ({
        prefix: Prefix.parse(`10.24.${i}.0/24`),
        address: Address.parse(`127.0.0.${2 + i}`),
        port,
      })),
      { signal },
    );
    return new Sender(peers, memory);
  }

  get fd(): number {
    return this.#socket.fd;
  }

  /** Adds a datagram of `length` bytes, in two pieces, to a peer; answers what is to arrive. */
  add(peer: number, length = 100): Uint8Array {
    const at = this.#next++ * 256;
    const datagram = Uint8Array.from({ length }, (_, i) => i * 3 + this.#next);
    this.#memory.bytes.set(datagram, at);
    const [word] = addressWords(Address.parse(`10.24.${peer}.1`));
    this.batch.reserve();
    this.batch.add(this.#reader.lookup4(word), at, 40, at + 40, length - 40);
    return datagram;
  }

  /** Adds datagrams to both peers in turn, so that each is a message of its own. */
  addInTurn(count: number): Uint8Array[] {
    return Array.from({ length: count }, (_, i) => this.add(i & 1));
  }

  /** The counters that are not zero. */
  counters(): Partial<Counters> {
    const all = Object.entries(readCounters(this.#counterMemory));
    return Object.fromEntries(all.filter(([, value]) => value !== 0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#libc.close(this.#socket.fd);
    this.#libc[Symbol.dispose]();
    this.io[Symbol.dispose]();
    for (const peer of this.peers) await peer[Symbol.asyncDispose]();
  }
}

/** Every second one, from `first` on: what one of the two peers gets. */
function everySecond<T>(list: readonly T[], first: number): T[] {
  return list.filter((_, i) => i % 2 === first);
}

Deno.test("SendBatch sends all of what was sent in part or interrupted, in order", async () => {
  await using sender = await Sender.open();
  const datagrams = sender.addInTurn(10);
  sender.io.script = [{ errno: Errno.EINTR }, { most: 3 }, { errno: Errno.EINTR }, { most: 1 }];
  sender.batch.flush();
  for (const i of [0, 1]) {
    assert.deepEqual(await sender.peers[i]!.receive(5), everySecond(datagrams, i));
  }
  assert.deepEqual(sender.counters(), { sentPackets: 10, sentBytes: 1_000, sendCalls: 5 });
});

Deno.test("SendBatch waits once for a full socket, then drops, counts and goes on", async () => {
  await using sender = await Sender.open();
  const full = { errno: Errno.EAGAIN };
  const datagrams = sender.addInTurn(4);
  sender.io.script = [full];
  sender.batch.flush();
  assert.deepEqual(await sender.peers[0]!.receive(2), everySecond(datagrams, 0));
  assert.equal(sender.io.waits, 1);

  sender.addInTurn(6);
  sender.io.script = [{ most: 2 }, full, full];
  sender.batch.flush();
  assert.equal(sender.io.waits, 2);
  const { sentPackets, dropSocketFull } = sender.counters();
  assert.deepEqual([sentPackets, dropSocketFull], [6, 4]);

  const later = sender.add(0);
  sender.batch.flush();
  assert.deepEqual((await sender.peers[0]!.receive(2))[1], later);
});

Deno.test("SendBatch drops what one peer cannot get, and nothing of the others", async () => {
  await using sender = await Sender.open();
  const datagrams = sender.addInTurn(6);
  // A packet filter's, and a route's refusal.
  sender.io.script = [{ most: 1 }, { errno: EPERM }, { most: 1 }, { errno: EPERM }];
  sender.batch.flush();
  assert.deepEqual(await sender.peers[0]!.receive(3), everySecond(datagrams, 0));
  assert.deepEqual(await sender.peers[1]!.receive(1), [datagrams[5]]);
  const { sentPackets, dropSendError } = sender.counters();
  assert.deepEqual([sentPackets, dropSendError], [4, 2]);
});

Deno.test("SendBatch sends a run that the path does not take one by one, and tries the next", async () => {
  await using sender = await Sender.open();
  const tooLong = { errno: Errno.EMSGSIZE };
  const datagrams = Array.from({ length: 5 }, () => sender.add(0));
  // Of the single ones one is interrupted, one is too long all the same.
  sender.io.script = [tooLong, { most: 2 }, { errno: Errno.EINTR }, tooLong];
  sender.batch.flush();
  assert.deepEqual(
    await sender.peers[0]!.receive(4),
    datagrams.filter((_, i) => i !== 2),
  );
  const { sentPackets, sentBytes, dropTooLong, sentDatagramRuns } = sender.counters();
  assert.deepEqual(
    [sentPackets, sentBytes, dropTooLong, sentDatagramRuns],
    [4, 400, 1, undefined],
  );
  const run = Array.from({ length: 3 }, () => sender.add(0));
  sender.batch.flush();
  assert.deepEqual(await sender.peers[0]!.receive(3), run);
  assert.equal(sender.counters().sentDatagramRuns, 1);
  assert.deepEqual(sender.notices, []);
});

Deno.test("SendBatch makes no runs where the way out takes none, and says so", async () => {
  await using sender = await Sender.open();
  sender.io.script = [{ errno: Errno.EIO }];
  for (let round = 0; round < 3; round++) {
    const datagrams = Array.from({ length: 4 }, () => sender.add(0));
    sender.batch.flush();
    assert.deepEqual(await sender.peers[0]!.receive(4), datagrams);
  }
  assert.equal(sender.counters().sentDatagramRuns, undefined);
  assert.equal(sender.notices.length, 1);
  assert.match(sender.notices[0]!, /external interface cannot send runs/);

  // Another socket may leave elsewhere; one of an old kernel takes no runs either.
  for (const [sendsRuns, runs] of [[true, 1], [false, 1]] as const) {
    sender.batch.setSocket(sender.fd, sendsRuns);
    const datagrams = Array.from({ length: 4 }, () => sender.add(0));
    sender.batch.flush();
    assert.deepEqual(await sender.peers[0]!.receive(4), datagrams);
    assert.equal(sender.counters().sentDatagramRuns, runs);
  }
});

Deno.test("SendBatch counts what it cannot send without a socket", async () => {
  await using sender = await Sender.open();
  sender.batch.setSocket(-1, true);
  sender.addInTurn(3);
  sender.batch.flush();
  assert.deepEqual(sender.counters(), { dropSendError: 3 });
});
