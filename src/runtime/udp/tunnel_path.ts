/**
 * The packet path of backend `udp` as Tables: the TUN queue, the sockets, the forwarding table and
 * the Worker, so that whatever of them goes away comes back with the next round.
 *
 * @module
 */
import { SystemCallError } from "../../../ffi/libc/errors.ts";
import { type FileDescriptor, Libc } from "../../../ffi/libc/open.ts";
import {
  adoptTunQueue,
  adoptUdpSocket,
  openTunQueue,
  openUdpSocket,
  setTransmitQueueLength,
  type TunQueue,
  type UdpSocket,
} from "../../../ffi/tun/open.ts";
import { UDP_LINK_NAME } from "../../backends/mod.ts";
import type { FdStore } from "../../service_manager/fd_store.ts";
import type { PathRecord, PathSettings } from "../../dataplane/path_record.ts";
import {
  openTunnel,
  SOCKET_BUFFER_BYTES,
  TRANSMIT_QUEUE_PACKETS,
  type Tunnel,
  type TunnelIdentity,
} from "../../dataplane/tunnel.ts";
import { describeError, OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { type Prefix, sameAddress } from "../../net/mod.ts";
import type { AnyStage } from "../../reconcile/reconciler.ts";
import type { Change, FailedChange, Kind, Table } from "../../reconcile/table.ts";
import type { Desired } from "../../state/desired.ts";
import { forwardingKey, type ForwardingSpec, type UdpSocketSpec } from "../../state/mod.ts";
import { Cell } from "../../util/cell.ts";

/** The device's queue, with what the path has to know of the device. */
interface QueueSpec extends TunnelIdentity {
  readonly name: string;
}

function queueSpecs(desired: Desired | undefined): readonly QueueSpec[] | undefined {
  const state = desired?.host;
  return state?.links?.filter(({ kind }) => kind === "tun").map(({ name, mtuBytes }) => {
    const own = (state.addresses ?? []).filter(({ link }) => link === name);
    const bases = own.map(({ address: { address } }) => [`ipv${address.family}`, address]);
    return { name, mtuBytes, ...Object.fromEntries(bases) };
  });
}

function sameIdentity(a: TunnelIdentity, b: TunnelIdentity): boolean {
  return a.mtuBytes === b.mtuBytes && sameAddress(a.ipv4, b.ipv4) && sameAddress(a.ipv6, b.ipv6);
}

interface OpenQueue extends TunQueue {
  readonly name: string;
}

interface OpenSocket extends UdpSocketSpec {
  readonly socket: UdpSocket;
}

/** The tunnel and the descriptors it uses, with the Tables over them. */
export class TunnelPath implements AsyncDisposable {
  readonly settings: PathSettings;
  readonly #libc = Libc.open();
  readonly #store: FdStore;
  readonly #log: Logger;
  #tunnel: Tunnel;
  #failed = false;
  #queue: OpenQueue | undefined;
  #sockets: OpenSocket[] = [];
  #identity: TunnelIdentity = { mtuBytes: 0 };
  /** Counts what has gone that a round brings back. */
  readonly drift = new Cell(0);
  /** Counts what a round has changed; {@linkcode TunnelPath.describe} tells it. */
  readonly changes = new Cell(0);

  /** @param store Where descriptors of the last run may be found, and new ones are kept. */
  constructor(settings: PathSettings, store: FdStore, log: Logger) {
    this.settings = settings;
    this.#store = store;
    this.#log = log;
    this.#tunnel = this.#open();
  }

  #open(): Tunnel {
    const tunnel = openTunnel({
      ...this.settings,
      onNotice: (text) => this.#log.info(text),
      onDeviceGone: () => this.#drifted(),
      onFault: (error) => {
        this.#log.error(describeError(error));
        this.fail(tunnel);
      },
    });
    return tunnel;
  }

  /** The stages before the kernel's links, which make the device. */
  stagesBefore(desired: () => Desired | undefined): AnyStage[] {
    return [{ table: this.queueTable, desired: () => queueSpecs(desired()) }];
  }

  /** The stages after links and addresses. */
  stagesAfter(desired: () => Desired | undefined): AnyStage[] {
    return [
      { table: this.socketTable, desired: () => desired() && (desired()?.host.udpSockets ?? []) },
      { table: this.forwardingTable, desired: () => desired()?.forwarding },
      { table: this.workerTable, desired: () => desired() && [{ name: "packets" }] },
    ];
  }

  /** What the path does at present. */
  describe(): PathRecord {
    const { settings } = this;
    return { settings, ...this.#identity, sockets: this.#sockets, forwarding: this.#forwarding() };
  }

  #setIdentity({ mtuBytes, ipv4, ipv6 }: TunnelIdentity): void {
    this.#identity = { mtuBytes, ...(ipv4 ? { ipv4 } : {}), ...(ipv6 ? { ipv6 } : {}) };
    this.#tunnel.setIdentity(this.#identity);
  }

  #forwarding(): ForwardingSpec[] {
    return this.#tunnel.forwarding.entries().map(({ prefix, address, port }) => ({
      destination: prefix,
      address,
      port,
    }));
  }

  counters() {
    return this.#tunnel.counters();
  }

  /** Notes that `tunnel` carries nothing any more. */
  fail(tunnel: Tunnel): void {
    if (tunnel !== this.#tunnel) return;
    this.#failed = true;
    this.#drifted();
  }

  #drifted(): void {
    this.drift.set(this.drift.value + 1);
  }

  #changed(): void {
    this.changes.set(this.changes.value + 1);
  }

  /** The open queue of the TUN device. Opening it makes the device. */
  readonly queueTable: Table<QueueSpec> = {
    kind: {
      id: "tun-queue",
      name: "TUN queue",
      key: ({ name }) => name,
      equal: sameIdentity,
      owns: () => true,
      format: ({ name }) => name,
    },
    list: () =>
      Promise.resolve(
        this.#isQueueAlive() ? [{ name: this.#queue!.name, ...this.#identity }] : [],
      ),
    apply: (changes, options) =>
      this.#applyEach(changes, async (change) => {
        if (change.op === "remove") return await this.#setQueue(undefined, options);
        const { desired } = change;
        if (change.op === "add") await this.#setQueue(this.#openQueue(desired.name), options);
        this.#setIdentity(desired);
      }),
  };

  readonly socketTable: Table<UdpSocketSpec> = {
    kind: {
      id: "udp-socket",
      name: "UDP socket",
      key: ({ address, port }) => `${address} ${port}`,
      equal: () => true,
      owns: () => true,
      format: ({ address, port }) => `${address} port ${port}`,
    },
    list: () => Promise.resolve(this.#sockets),
    apply: (changes, options) =>
      this.#applyEach(changes, async (change) => {
        if (change.op === "remove") await this.#removeSocket(change.actual, options);
        else await this.#addSocket(change.desired, options);
      }),
  };

  readonly forwardingTable: Table<ForwardingSpec> = {
    kind: forwardingKind,
    list: () => Promise.resolve(this.#forwarding()),
    apply: async (changes, options) => {
      const entries = new Map<string, { prefix: Prefix } & Omit<ForwardingSpec, "destination">>(
        this.#tunnel.forwarding.entries().map((entry) => [entry.prefix.toString(), entry]),
      );
      for (const change of changes) {
        if (change.op === "remove") entries.delete(change.actual.destination.toString());
        else {
          const { destination: prefix, address, port } = change.desired;
          entries.set(prefix.toString(), { prefix, address, port });
        }
      }
      await this.#tunnel.forwarding.replace([...entries.values()], options);
      this.#changed();
      return [];
    },
  };

  /** The running Worker; it starts once all it needs is there. */
  readonly workerTable: Table<{ readonly name: string }> = {
    kind: {
      id: "packet-path",
      name: "packet path",
      key: ({ name }) => name,
      equal: () => true,
      owns: () => true,
      format: () => UDP_LINK_NAME,
    },
    list: () => Promise.resolve(this.#tunnel.started && !this.#failed ? [{ name: "packets" }] : []),
    apply: (changes, options) =>
      this.#applyEach(changes, async () => {
        if (this.#failed) await this.#reopen(options);
        if (!this.#queue) throw new Error("the TUN device is not there");
        this.#tunnel.start(this.#queue.offloads);
        // Whatever an earlier run stored and this one has no use for.
        this.#store.discardRest();
      }),
  };

  async #applyEach<Spec>(
    changes: readonly Change<Spec>[],
    apply: (change: Change<Spec>) => Promise<void>,
  ): Promise<FailedChange<Spec>[]> {
    const failed: FailedChange<Spec>[] = [];
    for (const change of changes) {
      try {
        await apply(change);
      } catch (error) {
        failed.push({ change, error: error instanceof Error ? error : new Error(String(error)) });
      }
    }
    this.#changed();
    return failed;
  }

  #isQueueAlive(): boolean {
    if (!this.#queue) return false;
    try {
      adoptTunQueue(this.#libc, this.#queue.fd, this.#queue.name);
      return true;
    } catch {
      return false;
    }
  }

  #openQueue(name: string): OpenQueue {
    const queue = this.#adopt(
      name,
      "TUN device",
      (stored) => adoptTunQueue(this.#libc, stored, name),
    ) ?? this.#openNewQueue(name);
    if (!queue.offloads.tcp) {
      this.#log.info("This kernel's TUN devices have no offloads; carrying packets one by one");
    } else if (!queue.offloads.udp) {
      this.#log.info("This kernel's TUN devices have no UDP offload (Linux 6.2 brings it)");
    }
    return { ...queue, name };
  }

  /** What `adopt` makes of the descriptor that an earlier run stored, if it is still of use. */
  #adopt<T>(name: string, title: string, adopt: (stored: FileDescriptor) => T): T | undefined {
    const stored = this.#store.take(name);
    if (stored === undefined) return undefined;
    try {
      return adopt(stored);
    } catch (error) {
      this.#libc.close(stored);
      this.#log.info(`Reopening the ${title}: ${describeError(error)}`);
      return undefined;
    }
  }

  #openNewQueue(name: string): TunQueue {
    try {
      const queue = openTunQueue(this.#libc, name);
      setTransmitQueueLength(this.#libc, name, TRANSMIT_QUEUE_PACKETS);
      this.#store.put(name, queue.fd);
      return queue;
    } catch (error) {
      throw explainTunError(name, error);
    }
  }

  async #setQueue(
    queue: OpenQueue | undefined,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const former = this.#queue;
    this.#queue = queue;
    await this.#setDescriptors(options);
    if (former) this.#libc.close(former.fd);
    if (!queue && former) this.#store.remove(former.name);
  }

  async #addSocket(spec: UdpSocketSpec, options: { signal: AbortSignal }): Promise<void> {
    const socket = this.#adopt(
      storedName(spec),
      "UDP socket",
      (stored) => adoptUdpSocket(this.#libc, stored, SOCKET_BUFFER_BYTES),
    ) ?? this.#openNewSocket(spec);
    if (!socket.receivesRuns) {
      this.#log.info(
        "This kernel cannot join datagrams (UDP_GRO, Linux 5.0); taking them one by one",
      );
    }
    if (!socket.sendsRuns) {
      this.#log.info(
        "This kernel cannot split datagrams (UDP_SEGMENT, Linux 4.18); sending them one by one",
      );
    }
    this.#sockets = [...this.#sockets, { ...spec, socket }];
    await this.#setDescriptors(options);
  }

  #openNewSocket(spec: UdpSocketSpec): UdpSocket {
    const { address, port } = spec;
    try {
      const socket = openUdpSocket(this.#libc, {
        address: address.toBytes(),
        port,
        bufferBytes: SOCKET_BUFFER_BYTES,
      });
      this.#store.put(storedName(spec), socket.fd);
      return socket;
    } catch (cause) {
      throw new Error(`${describeError(cause)} for ${address} port ${port}`, { cause });
    }
  }

  async #removeSocket(spec: UdpSocketSpec, options: { signal: AbortSignal }): Promise<void> {
    const found = this.#sockets.find((each) => storedName(each) === storedName(spec));
    if (!found) return;
    this.#sockets = this.#sockets.filter((each) => each !== found);
    await this.#setDescriptors(options);
    this.#libc.close(found.socket.fd);
    this.#store.remove(storedName(spec));
  }

  async #setDescriptors(options: { signal: AbortSignal }): Promise<void> {
    // While the address changes there are two of a family; the newer one counts.
    const socket = (family: 4 | 6) =>
      this.#sockets.findLast(({ address }) => address.family === family)?.socket;
    await this.#tunnel.setDescriptors(
      { tun: this.#queue, socketV4: socket(4), socketV6: socket(6) },
      options,
    );
  }

  /** Puts a new tunnel in the place of one whose Worker has failed. */
  async #reopen(options: { signal: AbortSignal }): Promise<void> {
    const former = this.#tunnel;
    this.#tunnel = this.#open();
    this.#failed = false;
    this.#tunnel.setIdentity(this.#identity);
    await this.#tunnel.forwarding.replace(former.forwarding.entries(), options);
    await this.#setDescriptors(options);
    await former[Symbol.asyncDispose]();
  }

  /** Stops carrying packets. The device stays, and in a store its queue and the sockets. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end((_name, fd) => this.#libc.close(fd));
  }

  /** Stops carrying packets and leaves the open descriptors to whoever takes them from the store. */
  async surrender(): Promise<void> {
    await this.#end((name, fd) => this.#store.giveBack(name, fd));
  }

  async #end(part: (name: string, fd: FileDescriptor) => void): Promise<void> {
    await this.#tunnel[Symbol.asyncDispose]();
    if (this.#queue) part(this.#queue.name, this.#queue.fd);
    for (const spec of this.#sockets) part(storedName(spec), spec.socket.fd);
    this.#queue = undefined;
    this.#sockets = [];
    this.#libc[Symbol.dispose]();
  }
}

const forwardingKind: Kind<ForwardingSpec> = {
  id: "forwarding",
  name: "forwarding",
  key: forwardingKey,
  equal: (desired, actual) =>
    desired.address.equals(actual.address) && desired.port === actual.port,
  owns: () => true,
  format: ({ destination, address, port }) => `${destination} to ${address} port ${port}`,
};

function storedName({ address, port }: UdpSocketSpec): string {
  // A colon parts names in LISTEN_FDNAMES.
  return `udp-${address.toString().replaceAll(":", "_")}-${port}`;
}

function explainTunError(name: string, error: unknown): unknown {
  if (!(error instanceof SystemCallError)) return error;
  const hints: Readonly<Record<string, string>> = {
    ENOENT: "there is no /dev/net/tun; in a container, mount it or run privileged",
    ENODEV: 'this kernel has no TUN devices; load them with "modprobe tun"',
    EPERM: "making TUN devices needs root or CAP_NET_ADMIN",
    EBUSY: "another process has it; is another flanneld running?",
    EINVAL: `there is another link of that name, or one in another mode; "ip link delete ${name}"`,
  };
  const hint = hints[error.code];
  return hint === undefined ? error : new OperatorError(`Cannot open TUN device ${name}: ${hint}`, {
    cause: error,
  });
}
