/**
 * A name in the abstract namespace of unix sockets (unix(7)), held by one process at a time. It is
 * free the moment its holder ends, however that ends; it needs no file, and each network namespace
 * has names of its own.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from "./constants.ts";
import { SystemCallError } from "./errors.ts";
import type { Libc } from "./open.ts";
import { sockaddr_un } from "./structs.ts";

/** Who asks for the holder waits here until {@linkcode AbstractName.refresh}. */
const BACKLOG = 128;

/** A name that this process holds. */
export interface AbstractName extends Disposable {
  /** Lets go of those who have asked who holds the name; to be called now and then. */
  refresh(): void;
}

/** Who holds a name; `pid` is 0 for a process that cannot be seen from here. */
export interface NameHolder {
  readonly pid: number;
  readonly uid: number;
}

/** Takes `name`, of at most 107 bytes; `undefined` if another holds it. */
export function takeAbstractName(libc: Libc, name: string): AbstractName | undefined {
  const fd = libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  try {
    libc.bind(fd, addressOf(name));
    libc.listen(fd, BACKLOG);
  } catch (error) {
    libc.close(fd);
    if (error instanceof SystemCallError && error.code === "EADDRINUSE") return undefined;
    throw error;
  }
  let open = true;
  return {
    refresh() {
      for (let asker; open && (asker = libc.accept(fd)) !== undefined;) libc.close(asker);
    },
    [Symbol.dispose]() {
      if (open) libc.close(fd);
      open = false;
    },
  };
}

/** Who holds `name`; `undefined` if nobody does, or too many have asked. */
export function holderOfAbstractName(libc: Libc, name: string): NameHolder | undefined {
  const fd = libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  try {
    libc.connect(fd, addressOf(name));
    return libc.peerCredentials(fd);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return undefined;
  } finally {
    libc.close(fd);
  }
}

/** `struct sockaddr_un`, cut to the name's length as abstract names need it. */
function addressOf(name: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(`\0${name}`);
  if (bytes.length > sockaddr_un.size - sockaddr_un.sun_path) {
    throw new RangeError("The name is too long for an abstract socket");
  }
  const address = new Uint8Array(sockaddr_un.sun_path + bytes.length);
  new DataView(address.buffer).setUint16(sockaddr_un.sun_family, AF_UNIX, LITTLE_ENDIAN);
  address.set(bytes, sockaddr_un.sun_path);
  return address;
}
