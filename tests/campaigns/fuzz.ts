/**
 * Whatever others may hand the daemon (datagrams from both sides, netlink messages, rule listings,
 * leases, published documents, the config), mutated at random: each is taken, skipped by name, or
 * refused with the error that its reader promises, in no time.
 *
 * @module
 */
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { COUNTERS } from "../../src/dataplane/shared_state.ts";
import { fromDevice, OUTBOUND, PACKET, PacketPath } from "../dataplane/packet_path.ts";
import { buildPacket } from "../dataplane/reference.ts";
import { type Campaign, CampaignFailure, seededRandom } from "./campaign.ts";
import { type Subject, subjects } from "./fuzz_subjects.ts";

const INPUTS = { short: 3_000, long: 1_000_000 };
/** The time that one kind of input gets; nine kinds, so that the long form ends within ten minutes. */
const LIMIT_MS = 60_000;
/** What one input may hold up the event loop. */
const SLICE_MS = 5;
/** Inputs between two looks at the time and the signal. */
const BATCH = 500;

export const campaign: Campaign = {
  summary: "random datagrams, netlink messages, rule listings, leases, documents, configs",
  async run({ long, seed, signal, say }) {
    const random = seededRandom(seed);
    const count = long ? INPUTS.long : INPUTS.short;
    const violations: string[] = [];
    const figures: Record<string, number> = {};
    for (const subject of subjects()) {
      const done = await fuzzReader(subject, { count, random, signal, violations, figures });
      say(`${subject.name}: ${done} inputs`);
    }
    const done = await fuzzDatagrams({ count, random, signal, violations, figures });
    say(`datagrams: ${done} inputs each way`);
    if (violations.length > 0) throw new CampaignFailure("fuzz", violations);
    return figures;
  },
};

interface FuzzContext {
  readonly count: number;
  readonly random: () => number;
  readonly signal: AbortSignal;
  readonly violations: string[];
  readonly figures: Record<string, number>;
}

/** Returns how many inputs there was time for. */
async function fuzzReader(
  { name, samples, read, refuses }: Subject,
  { count, random, signal, violations, figures }: FuzzContext,
): Promise<number> {
  let taken = 0;
  let slowest = 0;
  const timed = (input: Uint8Array<ArrayBuffer>): number => {
    const startedAt = performance.now();
    try {
      read(input);
      taken++;
    } catch (error) {
      if (!refuses(error) && violations.length < 100) {
        violations.push(`${name}: ${String(error)} for ${quote(input)}`);
      }
    }
    return performance.now() - startedAt;
  };
  const until = performance.now() + LIMIT_MS;
  let done = 0;
  for (; done < count; done++) {
    if (done % BATCH === 0) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (performance.now() >= until) break;
    }
    const input = mutate(samples[Math.floor(random() * samples.length)]!, random);
    let tookMs = timed(input);
    // The machine may have been elsewhere; what is slow is so again.
    const takenOnce = taken;
    for (let again = 0; again < 5 && tookMs > SLICE_MS; again++) {
      tookMs = Math.min(tookMs, timed(input));
    }
    taken = takenOnce;
    slowest = Math.max(slowest, tookMs);
    if (tookMs > SLICE_MS) violations.push(`${name}: ${tookMs} ms for ${quote(input)}`);
  }
  figures[`${name}: taken`] = taken;
  figures[`${name}: slowest (ms)`] = Math.round(slowest * 100) / 100;
  return done;
}

/**
 * Datagrams of a peer and of a stranger, and packets of the device; each is carried or counted.
 * Returns how many there was time for.
 */
async function fuzzDatagrams(
  { count, random, signal, violations, figures }: FuzzContext,
): Promise<number> {
  await using path = await new PacketPath({ natTraversal: true }).open();
  const inbound = [buildPacket(PACKET), buildPacket({ ...PACKET, protocol: 17 })];
  const outbound = [buildPacket(OUTBOUND), buildPacket({ ...OUTBOUND, protocol: 17 })];
  const pick = (samples: readonly Uint8Array[]) =>
    mutate(new Uint8Array(samples[Math.floor(random() * samples.length)]!), random, 64);
  const until = performance.now() + LIMIT_MS;
  let done = 0;
  for (; done < count && performance.now() < until; done += 50) {
    signal.throwIfAborted();
    for (let i = 0; i < 50; i++) {
      await path.send(random() < 0.2 ? path.stranger : path.peer, pick(inbound).slice(0, 1_400));
      const packet = fromDevice(pick(outbound).slice(0, 1_400));
      // Sometimes the header before the packet, too.
      if (random() < 0.3) packet[Math.floor(random() * virtio_net_hdr.size)] = random() * 256;
      path.device.send(packet);
    }
    path.takeIn();
    path.takeOut();
  }
  const counters = path.counters();
  const dropped = COUNTERS.filter((each) => each.startsWith("drop"))
    .reduce((sum, each) => sum + counters[each], 0);
  figures["datagrams: carried to the device"] = counters.receivedPackets;
  figures["datagrams: carried to peers"] = counters.sentPackets;
  figures["datagrams: dropped and counted"] = dropped;
  if (counters.receivedPackets === 0 || counters.sentPackets === 0) {
    violations.push("datagrams: nothing was carried");
  }
  return done;
}

/** `sample` with a few bytes changed, cut out, doubled or made digits; the first `within` mostly. */
function mutate(
  sample: Uint8Array<ArrayBuffer>,
  random: () => number,
  within = Infinity,
): Uint8Array<ArrayBuffer> {
  let bytes = sample.slice();
  const below = (limit: number) => Math.floor(random() * limit);
  for (let n = below(6); n > 0 && bytes.length > 0; n--) {
    const at = below(Math.min(bytes.length, within));
    const length = 1 + below(20);
    switch (below(6)) {
      case 0: // cut off
        bytes = bytes.slice(0, random() < 0.3 ? at : bytes.length);
        break;
      case 1: // cut out
        bytes = Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(at + length));
        break;
      case 2: // doubled
        bytes = Uint8Array.of(...bytes.subarray(0, at + length), ...bytes.subarray(at));
        break;
      case 3: // a number, or what stands in for one
        bytes[at] = 48 + below(10);
        break;
      case 4: // what gives texts their shape
        bytes[at] = PUNCTUATION[below(PUNCTUATION.length)]!;
        break;
      default:
        bytes[at] = below(256);
    }
  }
  return bytes;
}

const PUNCTUATION = new TextEncoder().encode('{}[]",:-./\\ \n\0e+&');

function quote(input: Uint8Array): string {
  return JSON.stringify(new TextDecoder().decode(input.subarray(0, 300)));
}
