/**
 * The container image: a small system of Debian's packages, and flanneld on it. One archive is both
 * an OCI image layout and what `docker save` writes; no Docker is needed to make it.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { fetchPackages, pinnedPackages, type UnpackedPackage } from "../debian/packages.ts";
import { ROOT } from "../run.ts";
import { TARGETS } from "../target.ts";
import type { Build } from "./build.ts";
import { debianComponents, softwareBill, thirdPartyLicenses } from "./components.ts";
import { type Bytes, directory, type Entry, file, link, sorted, toBytes } from "./files.ts";
import { gzip } from "./gzip.ts";
import { writeTar } from "./tar.ts";

/** An image as one archive. */
export interface ImageArchive {
  readonly archive: Bytes;
  /** By which it is known once it is loaded. */
  readonly name: string;
  /** Bytes of its files, unpacked. */
  readonly size: number;
  /** Its bill of materials. */
  readonly bill: string;
}

/** What the image has no use for: it runs flanneld and the programs for rules alone. */
const LEFT_OUT: readonly RegExp[] = [
  /^usr\/share\/(?!ca-certificates\/|doc\/[^/]+\/copyright$)/,
  /^usr\/lib\/[^/]+\/(?:gconv|audit)\//,
  /^usr\/lib\/[^/]+\/lib(?:memusage|pcprofile|thread_db|c_malloc_debug|nss_compat|nss_hesiod)\b/,
  /^usr\/lib\/[^/]+\/lib(?:BrokenLocale|nsl|mvec|tic)\b/,
  /^usr\/lib\/systemd\//,
  /^usr\/(?:s?bin)\/(?!(?:xtables|iptables|ip6tables|nft)\b)/,
  // Of the CNI plugins those that the usual configuration for Kubernetes names.
  /^usr\/lib\/cni\/(?!(?:bridge|host-local|loopback|portmap)$)/,
  /^etc\/(?!os-release$|debian_version$)/,
  /^(?:var|boot|home|opt|root|srv|media|mnt|run|tmp|proc|sys|dev)(?:\/|$)/,
];

const IPTABLES_PROGRAMS = ["iptables", "ip6tables"].flatMap((name) =>
  ["", "-save", "-restore"].map((suffix) => [name, suffix] as const)
);

/**
 * Makes the image out of Debian's packages and the executable.
 *
 * @throws {PackageUnavailableError} If a package cannot be had.
 */
export async function imageArchive(build: Build): Promise<ImageArchive> {
  const { version, epoch, target } = build;
  const architecture = TARGETS[target].debian;
  const packages = await fetchPackages(pinnedPackages("image", architecture));
  const components = [...build.components, ...debianComponents(packages, 12, target)];
  const bill = softwareBill({ name: "flanneld-image", version, epoch, components });
  const layers = [
    { entries: systemEntries(packages), comment: "Debian's packages" },
    {
      entries: [
        file("usr/bin/flanneld", build.executable, 0o755),
        // Where upstream's image has it.
        link("opt/bin/flanneld", "/usr/bin/flanneld"),
        file("usr/share/doc/flanneld/LICENSE", Deno.readFileSync(join(ROOT, "LICENSE"))),
        file(
          "usr/share/doc/flanneld/THIRD-PARTY-LICENSES.txt",
          thirdPartyLicenses(build.components),
        ),
        file("usr/share/doc/flanneld/flanneld-image.cdx.json", bill),
      ],
      comment: `flanneld ${version}`,
    },
  ].map(({ entries, comment }) => {
    const tar = writeTar(sorted(entries), epoch);
    return { comment, diffId: digest(tar), blob: gzip(tar), size: tar.length };
  });
  const created = new Date(epoch * 1_000).toISOString();
  const labels = {
    "org.opencontainers.image.title": "flanneld",
    "org.opencontainers.image.description": "The per-host daemon of the flannel network",
    "org.opencontainers.image.version": version,
    "org.opencontainers.image.licenses": "Apache-2.0",
    "org.opencontainers.image.created": created,
  };
  const config = json({
    architecture,
    os: "linux",
    created,
    config: {
      Entrypoint: ["/usr/bin/flanneld"],
      Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
      WorkingDir: "/",
      Labels: labels,
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => `sha256:${diffId}`) },
    history: layers.map(({ comment }) => ({ created, created_by: "deno task image", comment })),
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: describe("application/vnd.oci.image.config.v1+json", config),
    layers: layers.map(({ blob }) => describe("application/vnd.oci.image.layer.v1.tar+gzip", blob)),
    annotations: labels,
  });
  const name = `docker.io/flanneld/flanneld:${version}`;
  const index = json({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [{
      ...describe("application/vnd.oci.image.manifest.v1+json", manifest),
      platform: { architecture, os: "linux" },
      annotations: {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": version,
      },
    }],
  });
  // For docker load and podman load, which find the same blobs.
  const dockerManifest = json([{
    Config: blobPath(config),
    RepoTags: [name.replace(/^docker\.io\//, "")],
    Layers: layers.map(({ blob }) => blobPath(blob)),
  }]);
  const blobs = [manifest, config, ...layers.map(({ blob }) => blob)];
  const archive = writeTar(
    sorted([
      file("oci-layout", json({ imageLayoutVersion: "1.0.0" })),
      file("index.json", index),
      file("manifest.json", dockerManifest),
      ...blobs.map((blob) => file(blobPath(blob), blob)),
    ]),
    epoch,
  );
  return { archive, name, bill, size: layers.reduce((sum, { size }) => sum + size, 0) };
}

/** The files of `packages` as a root directory with a merged `/usr`. */
function systemEntries(packages: readonly UnpackedPackage[]): Entry[] {
  const files = packages.flatMap(({ entries }) => entries)
    .filter(({ kind }) => kind !== "directory")
    .map((entry) => ({ ...entry, path: entry.path.replace(/^(?=(?:bin|sbin|lib\w*)\/)/, "usr/") }))
    .filter(({ path }) => !LEFT_OUT.some((pattern) => pattern.test(path)));
  const isCertificate = ({ path }: Entry) => path.startsWith("usr/share/ca-certificates/");
  const certificates = files.filter(isCertificate)
    .flatMap((entry) => entry.kind === "file" ? [entry] : [])
    .sort((a, b) => a.path < b.path ? -1 : 1)
    .map(({ bytes }) => `${new TextDecoder().decode(bytes).trim()}\n`);
  return [
    ...files.filter((entry) => !isCertificate(entry)),
    ...["bin", "sbin", "lib", "lib64"]
      .filter((name) => files.some(({ path }) => path.startsWith(`usr/${name}/`)))
      .map((name) => link(name, `usr/${name}`)),
    ...["dev", "etc", "proc", "root", "run", "sys", "var/lib"].map((path) => directory(path)),
    directory("tmp", 0o1777),
    file("etc/ssl/certs/ca-certificates.crt", certificates.join("")),
    file(
      "etc/passwd",
      "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    file("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    file("etc/nsswitch.conf", "hosts: files dns\n"),
    // As Debian chooses; a PATH that begins with this directory chooses the legacy variant.
    ...IPTABLES_PROGRAMS.flatMap(([name, suffix]) => [
      link(`usr/sbin/${name}${suffix}`, "xtables-nft-multi"),
      link(`usr/lib/iptables-legacy/${name}${suffix}`, "/usr/sbin/xtables-legacy-multi"),
    ]),
    // By this scanners know what is installed.
    ...packages.map(({ name, control }) =>
      file(`var/lib/dpkg/status.d/${name}`, `${control.trim()}\n`)
    ),
  ];
}

function json(value: unknown): Bytes {
  return toBytes(JSON.stringify(value));
}

function digest(bytes: Bytes): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function blobPath(bytes: Bytes): string {
  return `blobs/sha256/${digest(bytes)}`;
}

function describe(mediaType: string, bytes: Bytes) {
  return { mediaType, digest: `sha256:${digest(bytes)}`, size: bytes.length };
}
