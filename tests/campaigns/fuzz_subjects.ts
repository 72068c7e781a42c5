/**
 * Texts and bytes as they are, to be mutated: one of each kind that others hand the daemon.
 *
 * @module
 */
import { ConfigError } from "../../src/errors.ts";
import { type Message, messagesIn, MessageWriter } from "../../ffi/libnl/messages.ts";
import { parseHosts, parseSummary } from "../../src/cloud/routes/cluster_state.ts";
import { parseNetworkConfig } from "../../src/config/network_config.ts";
import {
  findUnprintedTables,
  parseChainListing,
  parseDump,
} from "../../src/firewall/iptables_dump.ts";
import { parseNftTable } from "../../src/firewall/nft_ruleset.ts";
import { previousNetworks, previousSubnet } from "../../src/host/subnet_env.ts";
import { decodeAddress, encodeAddress } from "../../src/kernel/netlink/codec/address.ts";
import { decodeLink, encodeLinkDump } from "../../src/kernel/netlink/codec/link.ts";
import {
  decodeFdbEntry,
  decodeNeighbor,
  encodeFdbDump,
  encodeNeighbor,
} from "../../src/kernel/netlink/codec/neighbor.ts";
import { decodeRoute } from "../../src/kernel/netlink/codec/route.ts";
import { decodeRule, encodeRuleDump } from "../../src/kernel/netlink/codec/rule.ts";
import { LeaseMap } from "../../src/lease/lease_map.ts";
import { InterfaceAddress, MacAddress } from "../../src/net/mod.ts";

/** One kind of input: what it looks like, and who reads it. */
export interface Subject {
  readonly name: string;
  readonly samples: readonly Uint8Array<ArrayBuffer>[];
  /** Reads an input; throws only what `refuses` knows. */
  readonly read: (bytes: Uint8Array<ArrayBuffer>) => void;
  /** Whether the error is one that the reader promises. */
  readonly refuses: (error: unknown) => boolean;
}

const fixtures = new URL("../fixtures/firewall/", import.meta.url);

function textSubject(
  name: string,
  samples: readonly string[],
  read: (text: string) => void,
  refuses: (error: unknown) => boolean,
): Subject {
  return {
    name,
    samples: samples.map((text) => new TextEncoder().encode(text)),
    read: (bytes) => read(new TextDecoder().decode(bytes)),
    refuses,
  };
}

/** An error of the class itself, none that a slip of ours makes. */
const isPlainError = (error: unknown) => error instanceof Error && error.constructor === Error;
const never = () => false;

/** The kinds. Files are read when it is called. */
export function subjects(): Subject[] {
  const fixture = (name: string) => Deno.readTextFileSync(new URL(name, fixtures));
  return [
    netlinkSubject(),
    textSubject(
      "iptables dumps",
      ["iptables-nft-save.txt", "ip6tables-legacy-save.txt"].map(fixture),
      (text) => {
        parseDump(text);
        parseChainListing(text);
        findUnprintedTables(text);
      },
      isPlainError,
    ),
    textSubject(
      "nft listings",
      ["nft-flannel-ipv4.json", "nft-flannel-ipv6.json"].map(fixture),
      (text) => {
        parseNftTable(text, 4);
        parseNftTable(text, 6);
      },
      isPlainError,
    ),
    leaseSubject(),
    textSubject("published documents", PUBLISHED, (text) => {
      for (const parse of [parseSummary, parseHosts]) {
        try {
          JSON.stringify(parse(text));
        } catch (error) {
          if (!isPlainError(error)) throw error;
        }
      }
    }, never),
    textSubject("configs", CONFIGS, (text) => {
      parseNetworkConfig(text);
    }, (error) => error instanceof ConfigError),
    textSubject("subnet files", [SUBNET_ENV], (text) => {
      previousSubnet(text);
      previousNetworks(text);
    }, never),
  ];
}

const SUBNET_ENV = "FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=10.24.7.1/24\n" +
  'FLANNEL_IPV6_SUBNET="fd00:24::1/64" # comment\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n';

const CONFIGS = [
  '{"Network":"10.24.0.0/16","SubnetLen":24,"SubnetMin":"10.24.1.0","Backend":{"Type":"vxlan","VNI":7}}',
  '{"EnableIPv6":true,"Network":"10.24.0.0/16","IPv6Network":"fd00::/48","Backend":{"Type":"udp"}}',
];

const PUBLISHED = [
  JSON.stringify({
    term: "1-2",
    hosts: {
      "10.24.7.0-24": { instance: "i-1", state: "unrouted", reason: "no room", check: "off" },
      "10.24.8.0-24": { instance: "i-2", state: "routed" },
    },
  }),
  JSON.stringify({
    term: "1-2",
    writer: "i-1",
    tables: [{ id: "vtb-1", used: 3, limit: 200, trouble: "none" }],
    overflow: ["10.24.7.0-24"],
    orphans: [{ prefix: "10.24.7.0/24", instance: "i-9", state: "grace", sinceMs: 1e300 }],
  }),
];

/** Leases of three shapes; the first line of a text is the key. */
function leaseSubject(): Subject {
  const value = {
    PublicIP: "10.0.1.10",
    PublicIPv6: "fd00:10::1",
    BackendType: "vxlan",
    BackendData: { VNI: 1, VtepMAC: "aa:bb:cc:dd:ee:ff" },
  };
  const samples = [
    `10.24.7.0-24\n${JSON.stringify(value)}`,
    `10.24.8.0-24&fd00:24:0:8::-64\n${JSON.stringify({ ...value, BackendV6Data: { VNI: 1 } })}`,
    `10.24.9.0-24\n{"PublicIP":"10.0.1.11"}`,
  ];
  const map = new LeaseMap({ network: parseNetworkConfig(CONFIGS[1]!).config });
  map.replace([]);
  return textSubject("leases", samples, (text) => {
    const at = text.indexOf("\n");
    const key = text.slice(0, at);
    map.put({ key, value: text.slice(at + 1), order: "7" });
    const isSkipped = map.skipped().has(key);
    if (map.get(key) === undefined && !isSkipped) throw new TypeError(`${key} is lost`);
    if (isSkipped && map.skipped().get(key) === "") throw new TypeError(`${key} has no reason`);
    map.delete(key);
  }, never);
}

function netlinkSubject(): Subject {
  const writer = new MessageWriter();
  for (const text of ["10.24.7.1/24", "fd00:24::1/64"]) {
    const address = InterfaceAddress.parse(text);
    encodeAddress(writer, "add", { linkIndex: 2, address }, 1);
    encodeNeighbor(writer, "replace", {
      linkIndex: 2,
      address: address.address,
      mac: MacAddress.parse("aa:bb:cc:dd:ee:ff"),
    }, 2);
  }
  encodeLinkDump(writer, 3);
  encodeFdbDump(writer, 2, 4);
  encodeRuleDump(writer, 4, 5);
  const decoders = [
    ...[decodeLink, decodeAddress, decodeRoute, decodeRule],
    (view: DataView<ArrayBuffer>, message: Message) => decodeNeighbor(view, message, 2),
    (view: DataView<ArrayBuffer>, message: Message) => decodeFdbEntry(view, message, 2),
  ];
  return {
    name: "netlink messages",
    samples: [writer.bytes.slice()],
    read(bytes) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (const decode of decoders) {
        try {
          for (const message of messagesIn(view)) decode(view, message);
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
        }
      }
    },
    refuses: never,
  };
}
