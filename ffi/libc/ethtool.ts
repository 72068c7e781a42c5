/** Link features that only the ethtool ioctl reads and sets. @module */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import * as sys from "./constants.ts";
import { type FileDescriptor, Libc } from "./open.ts";
import { ethtool_value, ifreq } from "./structs.ts";

/** The ethtool ioctl (netdevice(7)). */
export class Ethtool implements Disposable {
  readonly #libc: Libc;
  readonly #fd: FileDescriptor;

  /** Opens the socket for the ioctl, in the network namespace of file `namespace` if given. */
  static open(options: { readonly namespace?: string } = {}): Ethtool {
    using stack = new DisposableStack();
    const libc = stack.use(Libc.open());
    const open = () => libc.socket(sys.AF_INET, sys.SOCK_DGRAM | sys.SOCK_CLOEXEC, 0);
    const { namespace } = options;
    const fd = namespace ? libc.inNetworkNamespace(namespace, open) : open();
    stack.move(); // now its own
    return new Ethtool(libc, fd);
  }

  private constructor(libc: Libc, fd: FileDescriptor) {
    this.#libc = libc;
    this.#fd = fd;
  }

  /**
   * Whether the stack leaves transmit checksums to `link`.
   *
   * @throws {SystemCallError} ENODEV if there is no such link.
   */
  txChecksum(link: string): boolean {
    return this.#value(link, sys.ETHTOOL_GTXCSUM, 0) !== 0;
  }

  /** @throws {SystemCallError} EOPNOTSUPP if the link cannot change it. */
  setTxChecksum(link: string, on: boolean): void {
    this.#value(link, sys.ETHTOOL_STXCSUM, on ? 1 : 0);
  }

  #value(link: string, command: number, data: number): number {
    const name = new TextEncoder().encode(link);
    if (name.length >= ifreq.ifr_data - ifreq.ifr_name) {
      throw new RangeError(`Cannot query link ${link}: the name is too long`);
    }
    // One block: the call keeps alive what it is handed, not what that points to.
    const block = new DataView(new ArrayBuffer(ifreq.size + ethtool_value.size));
    const bytes = new Uint8Array(block.buffer);
    bytes.set(name, ifreq.ifr_name);
    const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
    block.setBigUint64(ifreq.ifr_data, address + BigInt(ifreq.size), LITTLE_ENDIAN);
    block.setUint32(ifreq.size + ethtool_value.cmd, command, LITTLE_ENDIAN);
    block.setUint32(ifreq.size + ethtool_value.data, data, LITTLE_ENDIAN);
    this.#libc.ioctl(this.#fd, sys.SIOCETHTOOL, bytes);
    return block.getUint32(ifreq.size + ethtool_value.data, LITTLE_ENDIAN);
  }

  [Symbol.dispose](): void {
    this.#libc.close(this.#fd);
    this.#libc[Symbol.dispose]();
  }
}
