/**
 * Holds the codecs to libnl-route, which knows the formats independently: what one writes, the
 * other must read as the same.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { toolTest } from "../prerequisites.ts";
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import { Libc } from "../../ffi/libc/open.ts";
import { AF_BRIDGE, AF_LLC } from "../../ffi/libc/constants.ts";
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "../../ffi/libnl/constants.ts";
import { type Message, messagesIn, MessageWriter } from "../../ffi/libnl/messages.ts";
import { type CObject, openLibnl } from "../../ffi/libnl/open.ts";
import {
  NTF_SELF,
  NUD_PERMANENT,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RTM_NEWROUTE,
  RTN_BLACKHOLE,
  RTN_UNICAST,
  RTNH_F_ONLINK,
} from "../../ffi/libnl_route/constants.ts";
import { type LibnlRoute, openLibnlRoute } from "../../ffi/libnl_route/open.ts";
import { openSharedLibrary } from "../../ffi/shared_library.ts";
import type { FdbEntry, Neighbor, Route } from "../../src/kernel/netlink.ts";
import { decodeAddress } from "../../src/kernel/netlink/codec/address.ts";
import {
  decodeFdbEntry,
  decodeNeighbor,
  encodeNeighbor,
} from "../../src/kernel/netlink/codec/neighbor.ts";
import { decodeRoute, encodeRoute } from "../../src/kernel/netlink/codec/route.ts";
import { addressFamily } from "../../src/kernel/netlink/codec/values.ts";
import {
  Address,
  addressBits,
  type Family,
  InterfaceAddress,
  MacAddress,
  Prefix,
} from "../../src/net/mod.ts";
import { oracleSymbols } from "./libnl_oracle/symbols.ts";

/** libnl-route, with more of its functions than flanneld calls. */
interface Oracle {
  readonly library: LibnlRoute;
  readonly symbols: Deno.DynamicLibrary<typeof oracleSymbols>["symbols"];
}

function withOracle(body: (oracle: Oracle) => void): void {
  using stack = new DisposableStack();
  const libnl = stack.use(openLibnl(stack.use(Libc.open())));
  const library = stack.use(openLibnlRoute(libnl));
  const packages = { debian: "libnl-route-3-200", fedora: "libnl3" };
  const more = openSharedLibrary("libnl-route-3.so.200", oracleSymbols, packages);
  stack.adopt(more, () => more.close());
  body({ library, symbols: more.symbols });
}

const families = fc.constantFrom<Family>(4, 6);
const macs = fc.uint8Array({ minLength: 6, maxLength: 6 })
  .map((bytes) => MacAddress.fromBytes(new Uint8Array(bytes)));
const linkIndexes = fc.integer({ min: 1, max: 0x7fffffff });

/** An address other than the unspecified one, which libnl takes for none. */
function addresses(family: Family): fc.Arbitrary<Address> {
  return fc.bigInt({ min: 1n, max: (1n << BigInt(addressBits(family))) - 1n })
    .map((value) => new Address(family, value));
}

const routes: fc.Arbitrary<Route> = families.chain((family) =>
  fc.record({
    destination: fc.tuple(
      addresses(family),
      fc.integer({ min: 1, max: addressBits(family) }),
    ).map(([address, length]) => new Prefix(address, length)),
    path: fc.option(
      fc.record({
        gateway: fc.option(addresses(family), { nil: undefined }),
        linkIndex: linkIndexes,
        onlink: fc.boolean(),
      }),
      { nil: undefined },
    ),
    source: fc.option(addresses(family), { nil: undefined }),
    scope: fc.constantFrom("universe" as const, "link" as const),
    table: fc.constantFrom(254, 5000),
    protocol: fc.integer({ min: 1, max: 255 }),
    metric: fc.integer({ min: 1, max: 0xffffffff }),
  }).map(({ path, source, destination, ...rest }): Route => ({
    ...rest,
    destination,
    type: path ? "unicast" : "blackhole",
    tos: 0,
    onlink: path?.onlink ?? false,
    dead: false,
    ...(path?.gateway ? { gateway: path.gateway } : {}),
    ...(path ? { linkIndex: path.linkIndex } : {}),
    ...(source ? { source } : {}),
    nextHops: [],
    others: [],
  }))
);

function encode(write: (writer: MessageWriter) => void): Uint8Array<ArrayBuffer> {
  const writer = new MessageWriter(16); // so small that growing is exercised
  write(writer);
  return writer.bytes.slice();
}

function decode<T>(
  bytes: Uint8Array<ArrayBuffer>,
  read: (view: DataView<ArrayBuffer>, message: Message) => T,
): T {
  const values: T[] = [];
  const view = new DataView(bytes.buffer);
  for (const message of messagesIn(view)) values.push(read(view, message));
  assert.equal(values.length, 1);
  return values[0]!;
}

function withAddress(
  { library: { libnl }, symbols }: Oracle,
  address: Address,
  length: number,
  use: (object: CObject<"nl_addr">) => void,
): void {
  const object = libnl.buildAddress(addressFamily(address.family), address.toBytes());
  symbols.nl_addr_set_prefixlen(object, length);
  try {
    use(object);
  } finally {
    libnl.putAddress(object);
  }
}

/** Parses `bytes` with libnl-route's `parse` and hands the object to `read`. */
function parseWith<T>(
  bytes: Uint8Array<ArrayBuffer>,
  parse: (bytes: Uint8Array<ArrayBuffer>, place: Uint8Array<ArrayBuffer>) => number,
  put: (object: Deno.PointerObject) => void,
  read: (object: Deno.PointerObject) => T,
): T {
  const place = new BigUint64Array(1);
  assert.equal(parse(bytes, new Uint8Array(place.buffer)), 0);
  const object = Deno.UnsafePointer.create(place[0]!)!;
  try {
    return read(object);
  } finally {
    put(object);
  }
}

function readBytes({ symbols }: Oracle, address: Deno.PointerObject): Uint8Array {
  const bytes = new Uint8Array(symbols.nl_addr_get_len(address));
  Deno.UnsafePointerView.copyInto(symbols.nl_addr_get_binary_addr(address)!, bytes);
  return bytes;
}

function readAddress(oracle: Oracle, address: Deno.PointerValue): string | undefined {
  if (!address) return undefined;
  const length = oracle.symbols.nl_addr_get_prefixlen(address);
  return `${Address.fromBytes(readBytes(oracle, address))}/${length}`;
}

function host(address: Address | undefined): string | undefined {
  return address && `${address}/${addressBits(address.family)}`;
}

const LIBNL = ["libnl", "libnl-route"] as const;

toolTest("encodeRoute() writes what libnl-route reads as the same route", LIBNL, () => {
  withOracle((oracle) => {
    const { symbols } = oracle;
    fc.assert(fc.property(routes, (route) => {
      const bytes = encode((writer) => encodeRoute(writer, "add", route, 1));
      const read = parseWith(
        bytes,
        symbols.rtnl_route_parse,
        symbols.rtnl_route_put,
        (object) => {
          const hop = symbols.rtnl_route_get_nnexthops(object) > 0
            ? symbols.rtnl_route_nexthop_n(object, 0)
            : null;
          return {
            destination: readAddress(oracle, symbols.rtnl_route_get_dst(object)),
            source: readAddress(oracle, symbols.rtnl_route_get_pref_src(object)),
            type: symbols.rtnl_route_get_type(object),
            scope: symbols.rtnl_route_get_scope(object),
            table: symbols.rtnl_route_get_table(object),
            protocol: symbols.rtnl_route_get_protocol(object),
            metric: symbols.rtnl_route_get_priority(object),
            gateway: hop ? readAddress(oracle, symbols.rtnl_route_nh_get_gateway(hop)) : undefined,
            linkIndex: hop ? symbols.rtnl_route_nh_get_ifindex(hop) : undefined,
            onlink: hop ? (symbols.rtnl_route_nh_get_flags(hop) & RTNH_F_ONLINK) !== 0 : false,
          };
        },
      );
      assert.deepEqual(read, {
        destination: route.destination.toString(),
        source: host(route.source),
        type: route.type === "unicast" ? RTN_UNICAST : RTN_BLACKHOLE,
        scope: route.scope === "link" ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
        table: route.table,
        protocol: route.protocol,
        metric: route.metric,
        gateway: host(route.gateway),
        linkIndex: route.linkIndex,
        onlink: route.onlink,
      });
    }));
  });
});

toolTest("decodeRoute() reads what libnl-route and encodeRoute() write", LIBNL, () => {
  withOracle((oracle) => {
    const { library, symbols } = oracle;
    fc.assert(fc.property(routes, (route) => {
      const own = encode((writer) => encodeRoute(writer, "replace", route, 7));
      assert.deepEqual(decode(own, (view, message) => decodeRoute(view, message)), route);

      const object = library.libnl.owned("rtnl_route_alloc", symbols.rtnl_route_alloc());
      try {
        symbols.rtnl_route_set_family(object, addressFamily(route.destination.family));
        const { destination } = route;
        withAddress(oracle, destination.address, destination.length, (address) => {
          symbols.rtnl_route_set_dst(object, address);
        });
        if (route.source) {
          withAddress(oracle, route.source, addressBits(route.source.family), (address) => {
            symbols.rtnl_route_set_pref_src(object, address);
          });
        }
        symbols.rtnl_route_set_type(
          object,
          route.type === "unicast" ? RTN_UNICAST : RTN_BLACKHOLE,
        );
        symbols.rtnl_route_set_scope(
          object,
          route.scope === "link" ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
        );
        symbols.rtnl_route_set_table(object, route.table);
        symbols.rtnl_route_set_protocol(object, route.protocol);
        symbols.rtnl_route_set_priority(object, route.metric);
        if (route.linkIndex !== undefined) {
          const hop = symbols.rtnl_route_nh_alloc()!; // given to the route below
          symbols.rtnl_route_nh_set_ifindex(hop, route.linkIndex);
          if (route.onlink) symbols.rtnl_route_nh_set_flags(hop, RTNH_F_ONLINK);
          if (route.gateway) {
            withAddress(oracle, route.gateway, addressBits(route.gateway.family), (address) => {
              symbols.rtnl_route_nh_set_gateway(hop, address);
            });
          }
          symbols.rtnl_route_add_nexthop(object, hop);
        }
        const bytes = library.buildMessage(
          "rtnl_route_build_add_request",
          (place) => symbols.rtnl_route_build_add_request(object, NLM_F_CREATE, place),
        );
        const decoded = decode(bytes, (view, message) => {
          assert.equal(message.type, RTM_NEWROUTE);
          return decodeRoute(view, message);
        });
        assert.deepEqual(decoded, route);
      } finally {
        symbols.rtnl_route_put(object);
      }
    }));
  });
});

function texts(entry: Neighbor | FdbEntry | undefined): Record<string, string> {
  return Object.fromEntries(Object.entries(entry ?? {}).map(([name, value]) => [name, `${value}`]));
}

const neighbors = families.chain((family) =>
  fc.record({ linkIndex: linkIndexes, address: addresses(family), mac: macs })
);
const fdbEntries = families.chain((family) =>
  fc.record({ linkIndex: linkIndexes, mac: macs, remote: addresses(family) })
);

toolTest("encodeNeighbor() and the decoders agree with libnl-route", LIBNL, () => {
  withOracle((oracle) => {
    const { library, symbols } = oracle;
    const { libnl } = library;
    const check = (entry: Neighbor | FdbEntry) => {
      const fdb = "remote" in entry;
      const address = fdb ? entry.remote : entry.address;
      const own = encode((writer) => encodeNeighbor(writer, "replace", entry, 1));
      const read = parseWith(own, symbols.rtnl_neigh_parse, symbols.rtnl_neigh_put, (object) => ({
        linkIndex: symbols.rtnl_neigh_get_ifindex(object),
        state: symbols.rtnl_neigh_get_state(object),
        self: (symbols.rtnl_neigh_get_flags(object) & NTF_SELF) !== 0,
        mac: [...readBytes(oracle, symbols.rtnl_neigh_get_lladdr(object)!)],
        address: readAddress(oracle, symbols.rtnl_neigh_get_dst(object)),
      }));
      assert.deepEqual(read, {
        linkIndex: entry.linkIndex,
        state: NUD_PERMANENT,
        self: fdb,
        mac: [...entry.mac.toBytes()],
        address: host(address),
      });

      const object = library.libnl.owned("rtnl_neigh_alloc", symbols.rtnl_neigh_alloc());
      try {
        // Before the family: for AF_BRIDGE libnl would refuse an IP address.
        withAddress(oracle, address, addressBits(address.family), (destination) => {
          assert.equal(symbols.rtnl_neigh_set_dst(object, destination), 0);
        });
        symbols.rtnl_neigh_set_family(object, fdb ? AF_BRIDGE : addressFamily(address.family));
        symbols.rtnl_neigh_set_ifindex(object, entry.linkIndex);
        symbols.rtnl_neigh_set_state(object, NUD_PERMANENT);
        if (fdb) symbols.rtnl_neigh_set_flags(object, NTF_SELF);
        const mac = libnl.buildAddress(AF_LLC, entry.mac.toBytes());
        symbols.rtnl_neigh_set_lladdr(object, mac);
        libnl.putAddress(mac);
        const flags = NLM_F_CREATE | NLM_F_REPLACE;
        const theirs = library.buildMessage(
          "rtnl_neigh_build_add_request",
          (place) => symbols.rtnl_neigh_build_add_request(object, flags, place),
        );
        for (const bytes of [own, theirs]) {
          const decoded = decode(
            bytes,
            (view, message) =>
              fdb
                ? decodeFdbEntry(view, message, entry.linkIndex)
                : decodeNeighbor(view, message, entry.linkIndex),
          );
          // As texts: a MacAddress keeps its value where deepEqual cannot see it.
          assert.deepEqual(texts(decoded), texts(entry));
        }
      } finally {
        symbols.rtnl_neigh_put(object);
      }
    };
    fc.assert(fc.property(neighbors, check));
    fc.assert(fc.property(fdbEntries, check));
  });
});

toolTest("decodeAddress() reads what libnl-route writes", LIBNL, () => {
  withOracle((oracle) => {
    const { library, symbols } = oracle;
    const interfaceAddresses = families.chain((family) =>
      fc.tuple(addresses(family), fc.integer({ min: 1, max: addressBits(family) }))
    );
    fc.assert(fc.property(interfaceAddresses, linkIndexes, ([address, length], linkIndex) => {
      const object = library.libnl.owned("rtnl_addr_alloc", symbols.rtnl_addr_alloc());
      try {
        withAddress(oracle, address, length, (local) => {
          symbols.rtnl_addr_set_local(object, local);
        });
        symbols.rtnl_addr_set_ifindex(object, linkIndex);
        symbols.rtnl_addr_set_scope(object, RT_SCOPE_UNIVERSE);
        symbols.rtnl_addr_set_flags(object, 0x20); // IFA_F_DEPRECATED
        const bytes = library.buildMessage(
          "rtnl_addr_build_add_request",
          (place) => symbols.rtnl_addr_build_add_request(object, NLM_F_CREATE | NLM_F_EXCL, place),
        );
        assert.deepEqual(decode(bytes, (view, message) => decodeAddress(view, message)), {
          linkIndex,
          address: new InterfaceAddress(address, length),
          scope: "universe",
          permanent: false,
          temporary: false,
          secondary: false,
          deprecated: true,
          tentative: false,
          dadFailed: false,
        });
      } finally {
        symbols.rtnl_addr_put(object);
      }
    }));
  });
});

Deno.test("messagesIn() and the decoders survive any bytes", () => {
  const anything = fc.uint8Array({ minLength: 0, maxLength: 200 });
  fc.assert(fc.property(anything, (tail) => {
    const bytes = new Uint8Array(16 + tail.length);
    bytes.set(tail, 16);
    new DataView(bytes.buffer).setUint32(0, bytes.length, LITTLE_ENDIAN);
    const view = new DataView(bytes.buffer);
    for (const read of [decodeRoute, decodeAddress]) {
      try {
        for (const message of messagesIn(view)) read(view, message);
      } catch (error) {
        assert.ok(error instanceof RangeError, String(error));
      }
    }
  }));
});
