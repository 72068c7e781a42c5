/**
 * Writes an RPM package of format 4: lead, signature header, header, and a cpio archive of the
 * files. Written here because rpmbuild is on few machines, strips executables (which removes the
 * program behind `denort`), and notes its host and time.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type Bytes, concat, type Entry, padding, sorted, toBytes } from "./files.ts";
import { gzip } from "./gzip.ts";

/** A file of the package and what rpm has to know of it. */
export type RpmEntry = Entry & { readonly flags?: number };

/** What a file is for (`rpmfileAttrs`). */
export const RPM_FILE = { config: 1, doc: 2, noReplace: 16, license: 128 } as const;

/** A name that is required or provided, with its version where there is one. */
export interface RpmDependency {
  readonly name: string;
  readonly flags?: number;
  readonly version?: string;
}

/** What an RPM package is made of. */
export interface RpmContent {
  readonly name: string;
  readonly version: string;
  readonly release: string;
  readonly architecture: "x86_64" | "aarch64";
  readonly summary: string;
  readonly description: string;
  readonly license: string;
  readonly requires: readonly RpmDependency[];
  /** Run by /bin/sh after the installation, before the removal and after it. */
  readonly scripts: Readonly<Record<"post" | "preun" | "postun", string>>;
  /** Directories are the package's own only where they are listed. */
  readonly entries: readonly RpmEntry[];
  readonly epoch: number;
}

/** Flags of dependencies (`rpmsenseFlags`). */
const SENSE = {
  less: 2,
  equal: 8,
  interpreter: 256,
  post: 1024,
  preun: 2048,
  postun: 4096,
} as const;
const RPMLIB = 1 << 24;

/** Features of rpm that such a package uses, and the version that has them. */
const FEATURES = {
  CompressedFileNames: "3.0.4-1",
  FileDigests: "4.6.0-1",
  PayloadFilesHavePrefix: "4.0-1",
  RichDependencies: "4.12.0-1",
};

const SHA256 = 8;
const MODES = { file: 0o100000, directory: 0o040000, link: 0o120000 } as const;

/** A value of a header: type of rpm, and how many. */
type Value =
  | { readonly int32: readonly number[] }
  | { readonly int16: readonly number[] }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly i18n: string }
  | { readonly binary: Bytes };

/** The package as one file. */
export function writeRpm(content: RpmContent): Bytes {
  const own = new Map(content.entries.map((entry) => [entry.path, entry]));
  const entries: RpmEntry[] = sorted(content.entries).filter(({ path }) => own.has(path));
  const cpio = writeCpio(entries, content.epoch);
  const payload = gzip(cpio);
  const header = writeHeader(63, tags(content, entries, payload));
  const both = concat([header, payload]);
  const signature = writeHeader(62, [
    [269, { string: digest("sha1", header) }],
    [273, { string: digest("sha256", header) }],
    [1000, { int32: [both.length] }],
    [1004, { binary: new Uint8Array(createHash("md5").update(both).digest()) }],
    [1007, { int32: [cpio.length] }],
  ]);
  return concat([lead(content), signature, padding(signature.length, 8), both]);
}

/** What very old tools read; rpm itself only looks at its mark. */
function lead({ name, version, release, architecture }: RpmContent): Bytes {
  const bytes = new Uint8Array(96);
  bytes.set([0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, architecture === "x86_64" ? 1 : 19]);
  bytes.set(toBytes(`${name}-${version}-${release}`).subarray(0, 65), 10);
  bytes.set([0, 1, 0, 5], 76);
  return bytes;
}

function tags(
  content: RpmContent,
  entries: readonly RpmEntry[],
  payload: Bytes,
): [tag: number, value: Value][] {
  const { name, version, release, architecture, epoch, scripts } = content;
  const evr = `${version}-${release}`;
  const requires: RpmDependency[] = [
    ...content.requires,
    ...(["post", "preun", "postun"] as const).map((script) => (
      { name: "/bin/sh", flags: SENSE.interpreter | SENSE[script] }
    )),
    ...Object.entries(FEATURES).map(([feature, version]) => (
      { name: `rpmlib(${feature})`, flags: RPMLIB | SENSE.less | SENSE.equal, version }
    )),
  ];
  const isa = architecture === "x86_64" ? "x86-64" : "aarch-64";
  const provides: RpmDependency[] = [name, `${name}(${isa})`].map((name) => (
    { name, flags: SENSE.equal, version: evr }
  ));
  const parent = (path: string) => `/${path.slice(0, path.lastIndexOf("/") + 1)}`;
  const directories = [...new Set(entries.map(({ path }) => parent(path)))].sort();
  const bytesOf = (entry: Entry) => entry.kind === "file" ? entry.bytes : undefined;
  const sizes = entries.map((entry) => entry.kind === "directory" ? 4096 : contentOf(entry).length);
  const each = (value: (entry: RpmEntry, index: number) => number) => ({
    int32: entries.map(value),
  });
  const text = (value: (entry: RpmEntry) => string) => ({ strings: entries.map(value) });
  return [
    [100, { strings: ["C"] }],
    [1000, { string: name }],
    [1001, { string: version }],
    [1002, { string: release }],
    [1004, { i18n: content.summary }],
    [1005, { i18n: content.description }],
    [1006, { int32: [epoch] }],
    [1007, { string: "localhost" }],
    [1009, { int32: [sizes.reduce((sum, size) => sum + size, 0)] }],
    [1014, { string: content.license }],
    [1016, { i18n: "System Environment/Daemons" }],
    [1021, { string: "linux" }],
    [1022, { string: architecture }],
    [1024, { string: scripts.post }],
    [1025, { string: scripts.preun }],
    [1026, { string: scripts.postun }],
    [1028, { int32: sizes }],
    [1030, { int16: entries.map(modeOf) }],
    [1033, { int16: entries.map(() => 0) }],
    [1034, each(() => epoch)],
    [1035, text((entry) => bytesOf(entry) ? digest("sha256", bytesOf(entry)!) : "")],
    [1036, text((entry) => entry.kind === "link" ? entry.target : "")],
    [1037, each(({ flags }) => flags ?? 0)],
    [1039, text(() => "root")],
    [1040, text(() => "root")],
    [1044, { string: `${name}-${evr}.src.rpm` }],
    [1045, each(() => 0xffffffff)],
    ...dependencies(provides, { name: 1047, flags: 1112, version: 1113 }),
    ...dependencies(requires, { name: 1049, flags: 1048, version: 1050 }),
    [1064, { string: "4.14.0" }],
    [1086, { string: "/bin/sh" }],
    [1087, { string: "/bin/sh" }],
    [1088, { string: "/bin/sh" }],
    [1095, each(() => 1)],
    [1096, each((_, index) => index + 1)],
    [1097, text(() => "")],
    [1116, each(({ path }) => directories.indexOf(parent(path)))],
    [1117, text(({ path }) => path.slice(path.lastIndexOf("/") + 1))],
    [1118, { strings: directories }],
    [1124, { string: "cpio" }],
    [1125, { string: "gzip" }],
    [1126, { string: "9" }],
    [1132, { string: `${architecture}-redhat-linux-gnu` }],
    [5011, { int32: [SHA256] }],
    [5062, { string: "utf-8" }],
    [5092, { strings: [digest("sha256", payload)] }],
    [5093, { int32: [SHA256] }],
  ];
}

function dependencies(
  all: readonly RpmDependency[],
  tags: { readonly name: number; readonly flags: number; readonly version: number },
): [number, Value][] {
  if (all.length === 0) return [];
  return [
    [tags.name, { strings: all.map(({ name }) => name) }],
    [tags.flags, { int32: all.map(({ flags }) => flags ?? 0) }],
    [tags.version, { strings: all.map(({ version }) => version ?? "") }],
  ];
}

/** A header: an index of tags and a store of values, of which `region` says that it is whole. */
function writeHeader(region: number, tags: readonly (readonly [number, Value])[]): Bytes {
  const index: number[][] = [];
  const store: Uint8Array[] = [];
  let length = 0;
  const put = (bytes: Uint8Array) => {
    store.push(bytes);
    length += bytes.length;
  };
  for (const [tag, value] of [...tags].sort(([a], [b]) => a - b)) {
    const { type, align, count, bytes } = encode(value);
    put(padding(length, align));
    index.push([tag, type, length, count]);
    put(bytes);
  }
  // The region's own entry comes first, its trailer last: it points back over the whole index.
  index.unshift([region, 7, length, 16]);
  put(words([region, 7, -16 * index.length, 16]));
  const preamble = concat([
    new Uint8Array([0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0]),
    words([index.length, length]),
  ]);
  return concat([preamble, words(index.flat()), ...store]);
}

function encode(value: Value) {
  const strings = (all: readonly string[]) => toBytes(all.map((text) => `${text}\0`).join(""));
  if ("int16" in value) {
    const bytes = new Uint8Array(value.int16.length * 2);
    const view = new DataView(bytes.buffer);
    value.int16.forEach((number, i) => view.setUint16(2 * i, number));
    return { type: 3, align: 2, count: value.int16.length, bytes };
  }
  if ("int32" in value) {
    return { type: 4, align: 4, count: value.int32.length, bytes: words(value.int32) };
  }
  if ("string" in value) return { type: 6, align: 1, count: 1, bytes: strings([value.string]) };
  if ("binary" in value) {
    return { type: 7, align: 1, count: value.binary.length, bytes: value.binary };
  }
  if ("strings" in value) {
    return { type: 8, align: 1, count: value.strings.length, bytes: strings(value.strings) };
  }
  return { type: 9, align: 1, count: 1, bytes: strings([value.i18n]) };
}

function words(numbers: readonly number[]): Bytes {
  const bytes = new Uint8Array(numbers.length * 4);
  const view = new DataView(bytes.buffer);
  numbers.forEach((number, i) => view.setInt32(4 * i, number));
  return bytes;
}

/** A cpio archive of the format "newc", whose names begin with `./`. */
function writeCpio(entries: readonly Entry[], epoch: number): Bytes {
  const pieces: Uint8Array[] = [];
  const put = (name: string, fields: readonly number[], content: Uint8Array) => {
    const path = toBytes(`${name}\0`);
    const [inode, mode, links] = fields;
    const numbers = [inode, mode, 0, 0, links, epoch, content.length, 0, 0, 0, 0, path.length, 0];
    const head = toBytes(`070701${numbers.map((n) => n!.toString(16).padStart(8, "0")).join("")}`);
    const start = concat([head, path]);
    pieces.push(start, padding(start.length, 4), content, padding(content.length, 4));
  };
  for (const [index, entry] of entries.entries()) {
    const links = entry.kind === "directory" ? 2 : 1;
    put(`./${entry.path}`, [index + 1, modeOf(entry), links], contentOf(entry));
  }
  put("TRAILER!!!", [0, 0, 1], new Uint8Array());
  return concat(pieces);
}

function contentOf(entry: Entry): Uint8Array {
  if (entry.kind === "file") return entry.bytes;
  return toBytes(entry.kind === "link" ? entry.target : "");
}

function modeOf(entry: Entry): number {
  return MODES[entry.kind] | (entry.kind === "link" ? 0o777 : entry.mode);
}

function digest(algorithm: string, bytes: Uint8Array): string {
  return createHash(algorithm).update(bytes).digest("hex");
}
