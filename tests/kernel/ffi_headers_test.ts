/**
 * Compares the symbol tables, constants and struct layouts of `ffi/` with the headers installed
 * here, by small C programs.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { C_TOOLS, missingTools, skippable } from "../prerequisites.ts";
import * as libcConstants from "../../ffi/libc/constants.ts";
import * as libcStructs from "../../ffi/libc/structs.ts";
import { libcSymbols } from "../../ffi/libc/symbols.ts";
import * as libnlConstants from "../../ffi/libnl/constants.ts";
import * as libnlStructs from "../../ffi/libnl/structs.ts";
import { libnlSymbols } from "../../ffi/libnl/symbols.ts";
import * as libnlRouteConstants from "../../ffi/libnl_route/constants.ts";
import * as libnlRouteStructs from "../../ffi/libnl_route/structs.ts";
import { libnlRouteSymbols } from "../../ffi/libnl_route/symbols.ts";
import * as tunConstants from "../../ffi/tun/constants.ts";
import * as tunStructs from "../../ffi/tun/structs.ts";
import { packetSymbols } from "../../ffi/tun/symbols.ts";
import { runProgram } from "../../src/util/process.ts";
import { oracleSymbols } from "./libnl_oracle/symbols.ts";

const LIBNL_HEADERS = "/usr/include/libnl3";

const LIBRARIES = [
  { folder: "libc", symbols: libcSymbols, constants: libcConstants, structs: libcStructs },
  { folder: "libnl", symbols: libnlSymbols, constants: libnlConstants, structs: libnlStructs },
  {
    folder: "libnl_route",
    symbols: libnlRouteSymbols,
    constants: libnlRouteConstants,
    structs: libnlRouteStructs,
  },
  {
    folder: "../tests/kernel/libnl_oracle",
    symbols: oracleSymbols,
    constants: {},
    structs: {},
  },
  // Its symbols' results are read as ints on purpose, see there.
  {
    folder: "tun",
    symbols: packetSymbols,
    constants: tunConstants,
    structs: tunStructs,
    narrowResults: true,
  },
] as const;

/** Constants younger than the headers of Debian 12, which the test passes over there. */
const YOUNG_CONSTANTS = ["TUN_F_USO4", "TUN_F_USO6", "VIRTIO_NET_HDR_GSO_UDP_L4"];

/** Headers that declare the constants and structs, as their files' comments say. */
const INCLUDES = [
  "stddef.h",
  "stdio.h",
  "sys/socket.h",
  "sys/un.h",
  "sys/time.h",
  "sys/eventfd.h",
  "poll.h",
  "fcntl.h",
  "sched.h",
  "malloc.h",
  "sys/mman.h",
  "netinet/in.h",
  "netinet/udp.h",
  "sys/ioctl.h",
  "sys/uio.h",
  "linux/filter.h",
  "linux/if.h",
  "linux/if_tun.h",
  "linux/virtio_net.h",
  "linux/netlink.h",
  "linux/genetlink.h",
  "linux/rtnetlink.h",
  "linux/if_link.h",
  "linux/if_tunnel.h",
  "linux/sockios.h",
  "linux/ethtool.h",
  "linux/if_addr.h",
  "linux/neighbour.h",
  "linux/fib_rules.h",
  "netlink/errno.h",
  "netlink/route/link/vxlan.h",
];

/** What a C type is to a caller: kind and size in bytes. */
const FFI_TYPES: Readonly<Record<string, string>> = {
  void: "void",
  u8: "unsigned 1",
  u16: "unsigned 2",
  u32: "unsigned 4",
  u64: "unsigned 8",
  usize: "unsigned 8",
  i32: "signed 4",
  i64: "signed 8",
  isize: "signed 8",
  pointer: "pointer 8",
  buffer: "pointer 8",
};

const obstacle = missingTools([...C_TOOLS, "libnl headers"]);

function test(name: string, body: () => Promise<void>): void {
  Deno.test(skippable(`ffi: ${name}`, obstacle), { ignore: obstacle !== undefined }, body);
}

/** Compiles and runs a C program of `declarations` and the body of its `main`; its output lines. */
async function runC(
  includes: readonly string[],
  declarations: readonly string[],
  statements: readonly string[],
): Promise<string[]> {
  const { signal } = new AbortController();
  const directory = await Deno.makeTempDir({ prefix: "flanneld-headers-" });
  try {
    const source = join(directory, "check.c");
    const program = join(directory, "check");
    await Deno.writeTextFile(
      source,
      [
        "#define _GNU_SOURCE",
        ...includes.map((header) => `#include <${header}>`),
        ...declarations,
        "int main(void) {",
        ...statements,
        "return 0; }",
      ].join("\n"),
    );
    const args = ["-std=gnu11", "-w", "-I", LIBNL_HEADERS, "-o", program, source];
    const compiled = await runProgram("gcc", args, { signal });
    assert.equal(compiled.code, 0, compiled.stderr);
    const result = await runProgram(program, [], { signal });
    assert.equal(result.code, 0, result.stderr);
    return result.stdout.trimEnd().split("\n");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

interface Prototype {
  readonly name: string;
  readonly text: string;
  readonly header: string;
  readonly result: string;
  readonly parameters: readonly string[];
}

/** The prototypes in the comments of a symbol table's file, by the entry below each. */
async function readPrototypes(folder: string): Promise<Map<string, Prototype>> {
  const path = join(import.meta.dirname!, "../../ffi", folder, "symbols.ts");
  const source = await Deno.readTextFile(path);
  const pattern = /^ +\/\/ ((.*?[ *])(\w+)\((.*)\)); <([\w./]+)>\n +(\w+): \{/gm;
  const prototypes = new Map<string, Prototype>();
  for (const [, text, result, name, parameters, header, entry] of source.matchAll(pattern)) {
    assert.equal(name, entry, "the comment is about its entry");
    prototypes.set(entry!, {
      name: name!,
      text: text!,
      header: header!,
      result: result!.trim(),
      parameters: parameters === "void" ? [] : parameters!.split(", ").filter((p) => p !== "..."),
    });
  }
  return prototypes;
}

for (const { folder, symbols, constants, structs, ...rest } of LIBRARIES) {
  if (Object.keys(symbols).length > 0) {
    test(`${folder}'s symbol table is the headers'`, async () => {
      const prototypes = await readPrototypes(folder);
      assert.deepEqual(
        [...prototypes.keys()],
        Object.keys(symbols),
        "each entry has its prototype",
      );
      const describe = (name: string, place: string, type: string) =>
        type === "void"
          ? `puts("${name} ${place} void");`
          : `DESCRIBE("${name} ${place}", ${type})`;
      const found = await runC(
        ["stdio.h", ...new Set([...prototypes.values()].map(({ header }) => header))],
        [
          // A second declaration that differs from the header's does not compile.
          ...[...prototypes.values()].map(({ text }) => `extern ${text};`),
          `#define DESCRIBE(label, type) printf("%s %s %zu\\n", label, \\
            __builtin_classify_type(*(type *)0) == __builtin_classify_type((void *)0) ? "pointer" : \\
            (type)-1 < (type)0 ? "signed" : "unsigned", sizeof(type));`,
        ],
        [...prototypes.values()].flatMap(({ name, result, parameters }) => [
          describe(name, "result", result),
          ...parameters.map((type, i) => describe(name, String(i), type)),
        ]),
      );
      const entries: [string, Deno.ForeignFunction][] = Object.entries(symbols);
      const expected = entries.flatMap(([name, symbol]) => [
        `${name} result ${FFI_TYPES[String(symbol.result)]}`,
        // What stands for "..." has no type in the header.
        ...symbol.parameters.slice(0, prototypes.get(name)!.parameters.length)
          .map((type, i) => `${name} ${i} ${FFI_TYPES[String(type)]}`),
      ]);
      const narrow = "narrowResults" in rest;
      assert.deepEqual(
        narrow ? found.map((line) => line.replace(/(result signed) 8$/, "$1 4")) : found,
        expected,
      );
    });
  }

  if (Object.keys(constants).length === 0) continue;
  test(`${folder}'s constants are the headers'`, async () => {
    const found = await runC(
      INCLUDES,
      [],
      Object.entries(constants).flatMap(([name, value]) => {
        const print = `printf("${name} %lld\\n", (long long)(${name}));`;
        if (!YOUNG_CONSTANTS.includes(name)) return [print];
        return [`#ifdef ${name}`, print, "#else", `puts("${name} ${value}");`, "#endif"];
      }),
    );
    assert.deepEqual(found, Object.entries(constants).map((entry) => entry.join(" ")));
  });

  test(`${folder}'s struct layouts are the headers'`, async () => {
    const layouts = Object.entries(structs as Record<string, Record<string, number>>);
    const found = await runC(
      INCLUDES,
      [],
      layouts.flatMap(([name, layout]) =>
        Object.keys(layout).map((field) => {
          const value = field === "size"
            ? `sizeof(struct ${name})`
            : `offsetof(struct ${name}, ${field})`;
          return `printf("${name}.${field} %zu\\n", ${value});`;
        })
      ),
    );
    const expected = layouts.flatMap(([name, layout]) =>
      Object.entries(layout).map(([field, value]) => `${name}.${field} ${value}`)
    );
    assert.deepEqual(found, expected);
  });
}
