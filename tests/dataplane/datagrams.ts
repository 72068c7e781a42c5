import dgram from "node:dgram";
import { once } from "node:events";

/** A UDP socket on loopback that hands out what it gets, in order. */
export class DatagramPeer implements AsyncDisposable {
  readonly #socket: dgram.Socket;
  readonly #received: Uint8Array[] = [];
  #waiter: (() => void) | undefined;

  private constructor(socket: dgram.Socket) {
    this.#socket = socket;
    socket.on("message", (message) => {
      this.#received.push(Uint8Array.from(message));
      this.#waiter?.();
    });
  }

  static async open(address: string): Promise<DatagramPeer> {
    const socket = dgram.createSocket("udp4");
    socket.bind(0, address);
    await once(socket, "listening");
    return new DatagramPeer(socket);
  }

  get port(): number {
    return this.#socket.address().port;
  }

  /** Resolves when the datagram has left. */
  send(datagram: Uint8Array, port: number, address: string): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#socket.send(datagram, port, address, (error) => error ? reject(error) : resolve())
    );
  }

  /** The next `count` datagrams. */
  async receive(count: number): Promise<Uint8Array[]> {
    while (this.#received.length < count) {
      await new Promise<void>((resolve) => this.#waiter = resolve);
    }
    return this.#received.splice(0, count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#socket, "close");
    this.#socket.close();
    await closed;
  }
}
