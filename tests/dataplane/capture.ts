/** Length of a pcap file's header, and of a record's. */
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const ETHERNET_BYTES = 14;

/** The IP packets in a capture of an Ethernet link, as tcpdump(8) writes it on this machine. */
export function readCapture(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = view.getUint32(0, true) === 0xa1b2c3d4;
  if (!little && view.getUint32(0) !== 0xa1b2c3d4) throw new Error("Cannot read capture");
  const packets: Uint8Array<ArrayBuffer>[] = [];
  for (let at = FILE_HEADER_BYTES; at + RECORD_HEADER_BYTES <= bytes.length;) {
    const captured = view.getUint32(at + 8, little);
    const length = view.getUint32(at + 12, little);
    if (captured !== length) throw new Error(`Cannot read capture: a packet of ${length} is cut`);
    at += RECORD_HEADER_BYTES;
    packets.push(bytes.slice(at + ETHERNET_BYTES, at + captured));
    at += captured;
  }
  return packets;
}
