/**
 * Policy rules as rtnetlink messages (RTM_*RULE).
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import { NLM_F_DUMP, NLM_F_REQUEST } from "../../../../ffi/libnl/constants.ts";
import {
  Attributes,
  type MessageBounds,
  type MessageWriter,
} from "../../../../ffi/libnl/messages.ts";
import {
  FIB_RULE_INVERT,
  FR_ACT_BLACKHOLE,
  FR_ACT_PROHIBIT,
  FR_ACT_TO_TBL,
  FR_ACT_UNREACHABLE,
  FRA_DPORT_RANGE,
  FRA_DST,
  FRA_FWMARK,
  FRA_FWMASK,
  FRA_IIFNAME,
  FRA_IP_PROTO,
  FRA_OIFNAME,
  FRA_PRIORITY,
  FRA_PROTOCOL,
  FRA_SPORT_RANGE,
  FRA_SRC,
  FRA_TABLE,
  RTM_GETRULE,
} from "../../../../ffi/libnl_route/constants.ts";
import { fib_rule_hdr } from "../../../../ffi/libnl_route/structs.ts";
import { type Family, Prefix } from "../../../net/mod.ts";
import type { PortRange, Rule, RuleRefusal } from "../../netlink.ts";
import { addressFamily, familyOf, readAddress } from "./values.ts";

/** RTM_GETRULE of one family. */
export function encodeRuleDump(writer: MessageWriter, family: Family, sequence: number): void {
  writer.start(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  const at = writer.reserve(fib_rule_hdr.size);
  writer.setUint8(at + fib_rule_hdr.family, addressFamily(family));
  writer.finish();
}

const ruleAttributes = new Attributes(FRA_DPORT_RANGE);

const RULE_REFUSALS: ReadonlyMap<number, RuleRefusal> = new Map([
  [FR_ACT_BLACKHOLE, "blackhole"],
  [FR_ACT_UNREACHABLE, "unreachable"],
  [FR_ACT_PROHIBIT, "prohibit"],
]);

/** An RTM_NEWRULE message, if the rule leads to a table or refuses. */
export function decodeRule(view: DataView<ArrayBuffer>, message: MessageBounds): Rule | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + fib_rule_hdr.family));
  const action = view.getUint8(start + fib_rule_hdr.action);
  const refusal = RULE_REFUSALS.get(action);
  if (!family || (action !== FR_ACT_TO_TBL && !refusal)) return undefined;
  const isInverted =
    (view.getUint32(start + fib_rule_hdr.flags, LITTLE_ENDIAN) & FIB_RULE_INVERT) !== 0;
  const attributes = ruleAttributes.parse(view, start + fib_rule_hdr.size, end);
  const from = readAddress(attributes, FRA_SRC);
  const to = readAddress(attributes, FRA_DST);
  const mark = attributes.uint32(FRA_FWMARK);
  const mask = attributes.uint32(FRA_FWMASK);
  const inputLink = attributes.string(FRA_IIFNAME);
  const outputLink = attributes.string(FRA_OIFNAME);
  const ipProtocol = attributes.uint8(FRA_IP_PROTO);
  const sourcePorts = readPorts(attributes, FRA_SPORT_RANGE);
  const ports = readPorts(attributes, FRA_DPORT_RANGE);
  return {
    family,
    priority: attributes.uint32(FRA_PRIORITY) ?? 0,
    table: attributes.uint32(FRA_TABLE) ?? view.getUint8(start + fib_rule_hdr.table),
    protocol: attributes.uint8(FRA_PROTOCOL) ?? 0,
    ...(from ? { from: new Prefix(from, view.getUint8(start + fib_rule_hdr.src_len)) } : {}),
    ...(to ? { to: new Prefix(to, view.getUint8(start + fib_rule_hdr.dst_len)) } : {}),
    ...(mark === undefined ? {} : { mark }),
    ...(mask === undefined ? {} : { mask }),
    ...(inputLink === undefined ? {} : { inputLink }),
    ...(outputLink === undefined ? {} : { outputLink }),
    ...(ipProtocol === undefined ? {} : { ipProtocol }),
    ...(sourcePorts ? { sourcePorts } : {}),
    ...(ports ? { ports } : {}),
    ...(refusal ? { refusal } : {}),
    ...(isInverted ? { inverted: true } : {}),
  };
}

/** `struct fib_rule_port_range`: two ports in the host's order. */
function readPorts(attributes: Attributes, type: number): PortRange | undefined {
  const bytes = attributes.bytes(type);
  if (bytes?.length !== 4) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return [view.getUint16(0, LITTLE_ENDIAN), view.getUint16(2, LITTLE_ENDIAN)];
}
