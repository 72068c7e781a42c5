/**
 * The plain way to carry packets between a TUN device and one peer, for comparison: one packet per
 * system call, no offload. `udp_plain_loop.ts LINK LOCAL PEER PORT`; ends with standard input.
 *
 * @module
 */
import { Libc } from "../../ffi/libc/open.ts";
import { SOL_UDP, UDP_GRO } from "../../ffi/tun/constants.ts";
import { openUdpSocket, socketAddress } from "../../ffi/tun/open.ts";
import { Address } from "../../src/net/mod.ts";

const TUNSETIFF = 0x400454ca;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const POLLIN = 1;

if (import.meta.main) {
  const [link, local, peer, port] = Deno.args;
  Deno.stdin.readable.pipeTo(new WritableStream()).then(() => Deno.exit(0));
  carry(link!, Address.parse(local!), Address.parse(peer!), Number(port));
}

async function carry(link: string, local: Address, peer: Address, port: number): Promise<void> {
  const libc = Libc.open();
  const { symbols } = Deno.dlopen("libc.so.6", {
    poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
    read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
    write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
    recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
    sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "i32" },
  });
  const tun = libc.openFile("/dev/net/tun", O_RDWR | O_NONBLOCK);
  const request = new Uint8Array(40);
  request.set(new TextEncoder().encode(link));
  new Uint16Array(request.buffer, 16, 1)[0] = IFF_TUN | IFF_NO_PI;
  libc.ioctl(tun, TUNSETIFF, request);
  const { fd } = openUdpSocket(libc, { address: local.toBytes(), port, bufferBytes: 4 << 20 });
  libc.setSocketOption(fd, SOL_UDP, UDP_GRO, 0); // one datagram per call, whatever a sender does
  const name = socketAddress(peer.toBytes(), port);
  Deno.stdout.writeSync(new TextEncoder().encode("ready\n"));

  const buffer = new Uint8Array(2048);
  const set = new Int32Array([tun, POLLIN, fd, POLLIN]);
  const size = BigInt(buffer.length);
  for (let round = 0;; round++) {
    symbols.poll(new Uint8Array(set.buffer), 2n, 100);
    for (let i = 0; i < 64; i++) {
      const length = symbols.read(tun, buffer, size);
      if (length <= 0) break;
      symbols.sendto(fd, buffer, BigInt(length), 0, name, name.length);
    }
    for (let i = 0; i < 64; i++) {
      const length = symbols.recv(fd, buffer, size, 0);
      if (length <= 0) break;
      symbols.write(tun, buffer, BigInt(length));
    }
    // The end of standard input is only seen between turns of the event loop.
    if (round % 10_000 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
}
