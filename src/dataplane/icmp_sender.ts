/** Rate-limited sending of ICMP errors. @module */
import { MSG_DONTWAIT } from "../../ffi/libc/constants.ts";
import { socketAddress } from "../../ffi/tun/open.ts";
import type { PacketIo } from "../../ffi/tun/packet_io.ts";
import { type IcmpErrorOptions, type IcmpProblem, writeIcmpError } from "./icmp.ts";
import { IPV4, IPV6, type PacketMemory } from "./packet.ts";
import { CONTROL, COUNTER } from "./shared_state.ts";

/** Errors per burst and per second (as Linux's icmp_msgs_per_sec). */
const BURST = 50;
const PER_SECOND = 1_000;

export interface IcmpSenderOptions {
  readonly io: PacketIo;
  readonly counters: Float64Array;
  readonly control: Int32Array;
  readonly rawV4: number;
  readonly rawV6: number;
}

/** Sends ICMP errors from this host, at the kernel's rate at most. */
export class IcmpSender {
  readonly #options: IcmpSenderOptions;
  #tokens = BURST;
  #filledAtMs = 0;

  constructor(options: IcmpSenderOptions) {
    this.#options = options;
  }

  /**
   * Reports `problem` to the sender of the packet at `ip`, where allowed. `at` is room for
   * `MAX_ICMP_BYTES`.
   */
  report(
    memory: PacketMemory,
    ip: number,
    length: number,
    at: number,
    problem: IcmpProblem,
  ): void {
    if (!this.#takeToken()) return;
    const { io, counters, control, rawV4, rawV6 } = this.#options;
    const ipv4 = memory.bytes[ip]! >> 4 === 4;
    const options: IcmpErrorOptions = {
      problem,
      mtuBytes: Atomics.load(control, CONTROL.MTU),
      source: ipv4
        ? control.subarray(CONTROL.OWN_IPV4, CONTROL.OWN_IPV4 + 1)
        : control.subarray(CONTROL.OWN_IPV6, CONTROL.OWN_IPV6 + 4),
    };
    const icmpBytes = writeIcmpError(memory, ip, length, at, options);
    if (icmpBytes === 0) return;
    const { bytes } = memory;
    const packet = bytes.subarray(at, at + icmpBytes);
    const to = at + (ipv4 ? IPV4.DESTINATION : IPV6.DESTINATION);
    const name = socketAddress(bytes.subarray(to, to + (ipv4 ? 4 : 16)), 0);
    const socket = ipv4 ? rawV4 : rawV6;
    if (io.sendto(socket, packet, BigInt(icmpBytes), MSG_DONTWAIT, name, name.length) > 0) {
      counters[COUNTER.icmpSent]!++;
    }
  }

  #takeToken(): boolean {
    const now = performance.now();
    this.#tokens = Math.min(BURST, this.#tokens + (now - this.#filledAtMs) * PER_SECOND / 1_000);
    this.#filledAtMs = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
