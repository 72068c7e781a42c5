/** Policy rules as rtnetlink messages (RTM_*RULE). @module */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import { Attributes, type Message, type MessageWriter } from "../../../../ffi/libnl/messages.ts";
import * as rt from "../../../../ffi/libnl_route/constants.ts";
import { fib_rule_hdr } from "../../../../ffi/libnl_route/structs.ts";
import { type Family, Prefix } from "../../../net/mod.ts";
import { present } from "../../../util/present.ts";
import type { PortRange, Rule, RuleRefusal } from "../../netlink.ts";
import { addressFamily, familyOf, FLAGS, readAddress } from "./values.ts";

/** RTM_GETRULE of one family. */
export function encodeRuleDump(writer: MessageWriter, family: Family, sequence: number): void {
  const at = writer.start(rt.RTM_GETRULE, FLAGS.list, sequence, fib_rule_hdr.size);
  writer.setUint8(at + fib_rule_hdr.family, addressFamily(family));
}

const ruleAttributes = new Attributes(rt.FRA_DPORT_RANGE);

const RULE_REFUSALS: ReadonlyMap<number, RuleRefusal> = new Map([
  [rt.FR_ACT_BLACKHOLE, "blackhole"],
  [rt.FR_ACT_UNREACHABLE, "unreachable"],
  [rt.FR_ACT_PROHIBIT, "prohibit"],
]);

/** An RTM_NEWRULE message, if the rule leads to a table or refuses. */
export function decodeRule(view: DataView<ArrayBuffer>, message: Message): Rule | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + fib_rule_hdr.family));
  const action = view.getUint8(start + fib_rule_hdr.action);
  const refusal = RULE_REFUSALS.get(action);
  if (!family || (action !== rt.FR_ACT_TO_TBL && !refusal)) return undefined;
  const flags = view.getUint32(start + fib_rule_hdr.flags, LITTLE_ENDIAN);
  const attributes = ruleAttributes.parse(view, start + fib_rule_hdr.size, end);
  const readPrefix = (type: number, length: number) => {
    const address = readAddress(attributes, type);
    return address && new Prefix(address, view.getUint8(start + length));
  };
  return present({
    family,
    priority: attributes.uint32(rt.FRA_PRIORITY) ?? 0,
    table: attributes.uint32(rt.FRA_TABLE) ?? view.getUint8(start + fib_rule_hdr.table),
    protocol: attributes.uint8(rt.FRA_PROTOCOL) ?? 0,
    from: readPrefix(rt.FRA_SRC, fib_rule_hdr.src_len),
    to: readPrefix(rt.FRA_DST, fib_rule_hdr.dst_len),
    mark: attributes.uint32(rt.FRA_FWMARK),
    mask: attributes.uint32(rt.FRA_FWMASK),
    inputLink: attributes.string(rt.FRA_IIFNAME),
    outputLink: attributes.string(rt.FRA_OIFNAME),
    ipProtocol: attributes.uint8(rt.FRA_IP_PROTO),
    sourcePorts: readPorts(attributes, rt.FRA_SPORT_RANGE),
    ports: readPorts(attributes, rt.FRA_DPORT_RANGE),
    refusal,
    inverted: (flags & rt.FIB_RULE_INVERT) !== 0 ? true : undefined,
  });
}

/** `struct fib_rule_port_range`: two ports in the host's order. */
function readPorts(attributes: Attributes, type: number): PortRange | undefined {
  const bytes = attributes.bytes(type);
  if (bytes?.length !== 4) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return [view.getUint16(0, LITTLE_ENDIAN), view.getUint16(2, LITTLE_ENDIAN)];
}
