/** Which files are in the packages, and where. @module */
import { join } from "node:path";
import { deno, ROOT } from "../run.ts";
import type { Build } from "./build.ts";
import { softwareBill, thirdPartyLicenses } from "./components.ts";
import { below, type Entry, file, link, toBytes } from "./files.ts";
import { gzip } from "./gzip.ts";

/** Each shell's name for the file of its completions, and the directory for it. */
const SHELLS = {
  bash: {
    name: "flanneld",
    deb: "bash-completion/completions",
    rpm: "bash-completion/completions",
  },
  zsh: { name: "_flanneld", deb: "zsh/vendor-completions", rpm: "zsh/site-functions" },
  fish: {
    name: "flanneld.fish",
    deb: "fish/vendor_completions.d",
    rpm: "fish/vendor_completions.d",
  },
} as const;

/** What is generated or read once for all packages. */
export interface Parts {
  readonly documents: readonly Entry[];
  /** For each shell what completes its command line. */
  readonly completions: ReadonlyMap<keyof typeof SHELLS, string>;
  readonly manual: string;
  readonly unit: string;
  readonly dropIn: string;
  readonly settings: string;
  readonly license: string;
  readonly thirdParty: string;
  readonly bill: string;
}

/** Reads and generates them. */
export async function prepareParts(build: Build): Promise<Parts> {
  const read = (path: string) => Deno.readTextFileSync(join(ROOT, path));
  // From the sources, as the executable may be for another machine.
  const say = (...args: string[]) => deno(["run", "-A", "--quiet", join(ROOT, "main.ts"), ...args]);
  const completions = new Map<keyof typeof SHELLS, string>();
  for (const shell of ["bash", "zsh", "fish"] as const) {
    completions.set(shell, await say("completion", shell));
  }
  return {
    documents: documents(),
    completions,
    manual: await say("man"),
    unit: read("dist/flanneld.service"),
    dropIn: read("dist/docker-flannel.conf"),
    settings: read("dist/flanneld.env"),
    license: read("LICENSE"),
    thirdParty: thirdPartyLicenses(build.components),
    bill: softwareBill({ ...build, name: "flanneld" }),
  };
}

/** README, ARCHITECTURE and docs/, as they lie in the checkout, so that their links lead on. */
function documents(): Entry[] {
  const paths = (directory: string): string[] =>
    [...Deno.readDirSync(join(ROOT, directory))].flatMap(({ name, isDirectory }) => {
      const path = directory === "." ? name : `${directory}/${name}`;
      return isDirectory ? paths(path) : [path];
    });
  const top = [...Deno.readDirSync(ROOT)].map(({ name }) => name).filter((name) =>
    /\.md$/.test(name)
  );
  return [...top, ...paths("docs")].sort()
    .map((path) => file(path, Deno.readFileSync(join(ROOT, path))));
}

/** The archive for hand and for other systems: everything in one directory. */
export function tarballEntries(build: Build, parts: Parts): Entry[] {
  return [
    file("flanneld", build.executable, 0o755),
    file("flanneld.service", parts.unit),
    file("docker-flannel.conf", parts.dropIn),
    file("flanneld.env", parts.settings),
    ...[...parts.completions].map(([shell, text]) =>
      file(`completions/${shell}/${SHELLS[shell].name}`, text)
    ),
    file("flanneld.8", parts.manual),
    ...parts.documents,
    file("LICENSE", parts.license),
    file("THIRD-PARTY-LICENSES.txt", parts.thirdParty),
    file("flanneld.cdx.json", parts.bill),
  ];
}

/** A file of a system package, and what it is for. */
export interface InstalledEntry {
  readonly entry: Entry;
  readonly role?: "config" | "doc" | "license";
}

/** What a package of a distribution installs, by the customs of its kind. */
export function installedEntries(
  build: Build,
  parts: Parts,
  kind: "deb" | "rpm",
): InstalledEntry[] {
  // By hand the program is in /usr/local.
  const adapt = (text: string) =>
    text.replaceAll("/usr/local/bin/flanneld", "/usr/bin/flanneld")
      .replace(/^# Install as \S+flanneld\.service.*\n/, "");
  const doc = "usr/share/doc/flanneld";
  const licenses = kind === "deb" ? doc : "usr/share/licenses/flanneld";
  const license = kind === "deb" ? "copyright" : "LICENSE";
  const docs: Entry[] = [
    ...below(doc, parts.documents),
    file(`${doc}/flanneld.cdx.json`, parts.bill),
    ...kind === "deb" ? [link(`${doc}/LICENSE`, "copyright")] : [],
  ];
  return [
    { entry: file("usr/bin/flanneld", build.executable, 0o755) },
    { entry: file("usr/lib/systemd/system/flanneld.service", adapt(parts.unit)) },
    // Where it takes effect only once it is linked or copied: Docker is not changed unasked.
    { entry: file("usr/share/flanneld/docker-flannel.conf", adapt(parts.dropIn)) },
    { entry: file("etc/flanneld.env", parts.settings, 0o600), role: "config" },
    ...[...parts.completions].map(([shell, text]) => (
      { entry: file(`usr/share/${SHELLS[shell][kind]}/${SHELLS[shell].name}`, text) }
    )),
    {
      entry: file("usr/share/man/man8/flanneld.8.gz", gzip(toBytes(parts.manual))),
      role: "doc",
    },
    ...docs.map((entry) => ({ entry, role: "doc" as const })),
    { entry: file(`${licenses}/${license}`, parts.license), role: "license" },
    { entry: file(`${licenses}/THIRD-PARTY-LICENSES.txt`, parts.thirdParty), role: "license" },
  ];
}
