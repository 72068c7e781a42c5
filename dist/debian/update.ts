// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno run -A dist/debian/update.ts`: pins the newest packages that Debian has for each purpose, in
 * `lock.json`: by indices that Debian has signed. A reader of the diff sees what changes.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { run } from "../run.ts";
import { type DebianArchitecture, TARGETS } from "../target.ts";
import type { DebianLock, DebianPackage, Purpose } from "./packages.ts";

const MIRROR = Deno.env.get("DEBIAN_MIRROR")?.replace(/\/+$/, "") ?? "http://deb.debian.org";

/** Of Debian's package debian-archive-keyring. */
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** Archives and suites, and the names of the packages taken from them. */
const SOURCES: Readonly<Record<Purpose, { suites: readonly string[]; names: readonly string[] }>> =
  {
    // Debian 11's libnl needs no glibc newer than 2.17; that of Debian 12 needs 2.34.
    libnl: { suites: ["debian/dists/bullseye"], names: ["libnl-3-200", "libnl-route-3-200"] },
    image: {
      suites: ["debian/dists/bookworm", "debian-security/dists/bookworm-security"],
      names: [
        ...["base-files", "libc6", "gcc-12-base", "libgcc-s1", "ca-certificates"],
        ...["iptables", "libxtables12", "libip4tc2", "libip6tc2", "libnetfilter-conntrack3"],
        ...["libnfnetlink0", "libnftnl11", "libmnl0"],
        ...["nftables", "libnftables1", "libjansson4", "libgmp10"],
        ...["libedit2", "libtinfo6", "libbsd0", "libmd0"],
        "containernetworking-plugins",
      ],
    },
    // A shell for the roots in which packages are tried.
    test: { suites: ["debian/dists/bookworm"], names: ["busybox-static"] },
    // The oldest glibc at hand, for tests: 2.31.
    "old-system": { suites: ["debian/dists/bullseye"], names: ["libc6", "libgcc-s1"] },
  };

if (import.meta.main) {
  const snapshot = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, "");
  const packages = {} as Record<Purpose, Record<DebianArchitecture, DebianPackage[]>>;
  for (const [purpose, { suites, names }] of Object.entries(SOURCES)) {
    const pinned = packages[purpose as Purpose] = {} as Record<DebianArchitecture, DebianPackage[]>;
    for (const { debian } of Object.values(TARGETS)) {
      const all: DebianPackage[] = [];
      for (const suite of suites) all.push(...await readSuite(suite, debian, names));
      pinned[debian] = await Promise.all(names.map((name) => newest(name, all)));
    }
  }
  const lock: DebianLock = { snapshot, packages };
  const path = join(import.meta.dirname!, "lock.json");
  await Deno.writeTextFile(path, `${JSON.stringify(lock, undefined, 2)}\n`);
  console.log(`${path} is written`);
}

async function readSuite(
  suite: string,
  architecture: DebianArchitecture,
  names: readonly string[],
): Promise<DebianPackage[]> {
  const index = `main/binary-${architecture}/Packages.xz`;
  const directory = await Deno.makeTempDir();
  const release = await download(`${suite}/InRelease`, `${directory}/InRelease`);
  // What Debian has signed names the checksum of the index, and the index those of the packages.
  await run("gpgv", [`--keyring=${KEYRING}`, release]);
  const packed = await download(`${suite}/${index}`, `${directory}/Packages.xz`);
  const sum = createHash("sha256").update(await Deno.readFile(packed)).digest("hex");
  const isSigned = (await Deno.readTextFile(release)).split("\n")
    .some((line) => line.startsWith(` ${sum} `) && line.endsWith(` ${index}`));
  if (!isSigned) throw new Error(`Cannot use ${suite}/${index}: Debian has not signed it`);
  const text = await run("xz", ["--decompress", "--stdout", packed]);
  await Deno.remove(directory, { recursive: true });
  return text.split("\n\n").flatMap((paragraph) => {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(paragraph)?.[1] ?? "";
    const name = field("Package");
    if (!names.includes(name)) return [];
    const path = `${suite.split("/")[0]}/${field("Filename")}`;
    return { name, version: field("Version"), path, sha256: field("SHA256") };
  });
}

async function download(path: string, target: string): Promise<string> {
  const response = await fetch(`${MIRROR}/${path}`);
  if (!response.ok) throw new Error(`Cannot read ${response.url}: HTTP status ${response.status}`);
  await Deno.writeFile(target, await response.bytes());
  return target;
}

async function newest(name: string, from: readonly DebianPackage[]): Promise<DebianPackage> {
  let best: DebianPackage | undefined;
  for (const each of from.filter((each) => each.name === name)) {
    const isNewer = best === undefined ||
      await run("dpkg", ["--compare-versions", each.version, "gt", best.version])
        .then(() => true, () => false);
    if (isNewer) best = each;
  }
  if (best === undefined) throw new Error(`Cannot pin ${name}: Debian does not have it`);
  return best;
}
