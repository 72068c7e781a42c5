/**
 * Writes a Debian package: an `ar` of a version, what dpkg has to know, and the files. Written here
 * because dpkg-deb is on Debian alone, and takes owners and times from the disk.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type Bytes, concat, type Entry, file, sorted, toBytes } from "./files.ts";
import { gzip } from "./gzip.ts";
import { writeTar } from "./tar.ts";

/** What a Debian package is made of. */
export interface DebContent {
  /** Fields of its control file, `Installed-Size` aside. */
  readonly control: Readonly<Record<string, string>>;
  /** Maintainer scripts: `postinst`, `prerm`, … */
  readonly scripts: Readonly<Record<string, string>>;
  /** Files that an administrator changes, as absolute paths. */
  readonly conffiles: readonly string[];
  readonly entries: readonly Entry[];
  readonly epoch: number;
}

/** The package as one file. */
export function writeDeb({ control, scripts, conffiles, entries, epoch }: DebContent): Bytes {
  const all = sorted(entries);
  const files = all.filter((entry) => entry.kind === "file");
  const size = files.reduce((sum, { bytes }) => sum + Math.ceil(bytes.length / 1024), all.length);
  const fields = { ...control, "Installed-Size": String(size) };
  const sums = files.map(({ path, bytes }) =>
    `${createHash("md5").update(bytes).digest("hex")}  ${path}\n`
  );
  const about = [
    file("control", Object.entries(fields).map(([name, value]) => `${name}: ${value}\n`).join("")),
    file("conffiles", conffiles.map((path) => `${path}\n`).join("")),
    file("md5sums", sums.join("")),
    ...Object.entries(scripts).map(([name, text]) => file(name, text, 0o755)),
  ];
  const archive = (entries: readonly Entry[]) => gzip(writeTar(entries, epoch, "./"));
  return writeAr([
    ["debian-binary", toBytes("2.0\n")],
    ["control.tar.gz", archive(sorted(about))],
    ["data.tar.gz", archive(all)],
  ], epoch);
}

function writeAr(members: readonly (readonly [name: string, bytes: Bytes])[], epoch: number) {
  const pieces = [toBytes("!<arch>\n")];
  for (const [name, bytes] of members) {
    const header = name.padEnd(16) + String(epoch).padEnd(12) + "0".padEnd(6).repeat(2) +
      "100644".padEnd(8) + String(bytes.length).padEnd(10) + "`\n";
    pieces.push(toBytes(header), bytes, toBytes("\n".repeat(bytes.length % 2)));
  }
  return concat(pieces);
}
