/**
 * Disks of the virtual machine: Debian's cloud kernel with a small user space and this Deno, and
 * the npm packages of the project. Both are made once and kept, see {@linkcode cachedDirectory}.
 *
 * Debian's packages are unpacked without running their scripts, so that nothing of this machine
 * is changed by it; what scripts would have done and is needed is done here.
 *
 * @module
 */
import { describeError } from "../../src/errors.ts";
import { runProgram } from "../../src/util/process.ts";
import { run } from "../support/run.ts";
import { cachedDirectory, latestCachedDirectory } from "./directory_cache.ts";
import { VmUnavailableError } from "./unavailable.ts";

/** What the machine boots from. */
export interface VmImage {
  /** A bzImage, on this machine. */
  readonly kernelFile: string;
  /** A raw ext4 file system. */
  readonly rootDisk: string;
  /** As `uname -r` will say. */
  readonly kernelRelease: string;
}

/** Options of {@linkcode openImage} and {@linkcode openModulesDisk}. */
export interface VmDiskOptions {
  readonly signal: AbortSignal;
  /** Told, one line at a time, what takes long. */
  readonly say: (line: string) => void;
}

/** Where in the guest the things are that both sides have to know. */
export const GUEST_PATHS = {
  project: "/project",
  denoDirectory: "/var/cache/deno",
  denoProgram: "/usr/bin/deno",
} as const;

/** What the tests need; what these depend on comes by itself. */
const PACKAGES = [
  ...["linux-image-cloud-amd64", "kmod", "busybox", "bash", "dash", "coreutils"],
  ...["iproute2", "iputils-ping", "ethtool", "nftables", "iptables", "ipset", "wireguard-tools"],
  ...["etcd-server", "etcd-client", "libnl-3-200", "libnl-route-3-200", "libgcc-s1"],
];

/** Packages that others depend on for scripts and services which are never run here. */
const LEFT_OUT = new RegExp(
  `^(?:${
    [
      ...["adduser", "cpio", "debconf", "dpkg", "init-system-helpers", "logsave", "mawk", "passwd"],
      ...["perl", "perl-.*", "libperl.*", "lib.*-perl", "libgdbm.*", "libdb5.*", "tar", "usrmerge"],
      ...["udev", "initramfs-.*", "klibc-utils", "libklibc", "linux-base.*", "libpam.*"],
      ...["gcc-.*-base", "libaudit.*", "libsemanage.*", "libsepol.*"],
    ].join("|")
  })$`,
);

/** Parts of packages that only people read, and conversions between character sets. */
const LEFT_OUT_FILES = ["./usr/share/doc", "./usr/share/man", "./usr/share/locale", "*/gconv"];

/** Without these in the kernel itself, it would need an initramfs. */
const BUILT_IN = [
  ...["BLK_DEV_NVME", "EXT4_FS", "SERIAL_8250_CONSOLE", "DEVTMPFS", "TMPFS", "PROC_FS", "SYSFS"],
];

const BUSYBOX = "/usr/bin/busybox";

/**
 * What the guest does from its start to its end, one command after the other (inittab(5) of
 * busybox, which cuts a command after 255 bytes). No shell is involved.
 */
const INITTAB = [
  ...[
    `${BUSYBOX} mount -t devtmpfs devtmpfs /dev`,
    `${BUSYBOX} mount -t proc proc /proc`,
    `${BUSYBOX} mount -t sysfs sysfs /sys`,
    `${BUSYBOX} mount -t tmpfs tmpfs /run`,
    `${BUSYBOX} mount -t tmpfs tmpfs /tmp`,
    `${BUSYBOX} mount -t ext4 /dev/nvme0n2 ${GUEST_PATHS.denoDirectory}`,
    `${BUSYBOX} tar -x -f /dev/nvme0n3 -C ${GUEST_PATHS.project}`,
    `${BUSYBOX} stty -F /dev/ttyS1 raw`,
    // What no program asks for by itself.
    "/usr/sbin/modprobe -a tun br_netfilter fou",
    `${BUSYBOX} ip link set lo up`,
  ].map((command) => `::sysinit:${command}`),
  `::wait:/usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 ` +
  `DENO_DIR=${GUEST_PATHS.denoDirectory} ${GUEST_PATHS.denoProgram} run -A --no-check ` +
  `--cached-only ${GUEST_PATHS.project}/tests/vm/guest.ts`,
  `::once:${BUSYBOX} poweroff -f`,
  "",
].join("\n");

const FILES: Readonly<Record<string, string>> = {
  "etc/inittab": INITTAB,
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
  "etc/group": "root:x:0:\n",
  "etc/hosts": "127.0.0.1 localhost vm\n::1 localhost\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
};

/** Links that packages' scripts make, and `/init`, by which busybox knows what it is to be. */
const LINKS: Readonly<Record<string, string>> = {
  "init": "usr/bin/busybox",
  "usr/bin/sh": "dash",
  ...Object.fromEntries(
    ["iptables", "ip6tables"].flatMap((name) => [name, `${name}-save`, `${name}-restore`])
      .map((name) => [`usr/sbin/${name}`, "xtables-nft-multi"]),
  ),
};

const DIRECTORIES = [
  ...["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "root", "var/lib", "var/tmp"],
  ...["proc", "sys", "dev", "run", "tmp", GUEST_PATHS.project, GUEST_PATHS.denoDirectory],
];

/** Why there can be no virtual machine here; `undefined` if nothing is known to be in the way. */
export function vmObstacle(): string | undefined {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    return `it boots a kernel for x86-64, and this is ${Deno.build.os} on ${Deno.build.arch}`;
  }
  if (Deno.uid() !== 0) return "needs root to run qemu in a namespace without a network";
  const system = readText("/etc/os-release") ?? "";
  if (!/^ID="?debian"?$/m.test(system)) {
    const name = /^PRETTY_NAME="?(.*?)"?$/m.exec(system)?.[1] ?? "another system";
    return `it is made of Debian's packages, and this is ${name}`;
  }
  return undefined;
}

/** Where disks are kept between runs. */
export function vmCacheDirectory(): string {
  const base = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME") ?? "/root"}/.cache`;
  return `${base}/flanneld-vm`;
}

/**
 * The image for the packages that Debian has now. Where Debian cannot be reached, an image of
 * former packages that was made in the same way.
 *
 * @throws {VmUnavailableError} If there is no image and Debian cannot be reached.
 */
export async function openImage(options: VmDiskOptions): Promise<VmImage> {
  const root = vmCacheDirectory();
  const recipe = await imageRecipe();
  let packages: DebianPackage[];
  try {
    packages = await resolvePackages(options);
  } catch (error) {
    if (!(error instanceof VmUnavailableError)) throw error;
    const former = await latestCachedDirectory(root, "image", (key) => key.startsWith(recipe));
    if (!former) throw error;
    options.say(`${error.message}; taking the image of an earlier run`);
    return await readImage(former);
  }
  const content = packages.map(({ name, version }) => `${name}=${version}`).sort().join("\n");
  const directory = await cachedDirectory(
    root,
    "image",
    `${recipe}-${await digest(content)}`,
    (directory) => buildImage(directory, packages, options),
    { ...options, onWaiting: () => options.say("Waiting for another run to make the disks") },
  );
  return await readImage(directory);
}

/**
 * A disk with the npm packages that deno.lock names, laid out as the guest's DENO_DIR. They have to
 * be in this machine's.
 *
 * @param repository Path of the project, with a slash at the end.
 */
export async function openModulesDisk(
  repository: string,
  options: VmDiskOptions,
): Promise<string> {
  const info = JSON.parse(await run(Deno.execPath(), ["info", "--json"], options));
  const { denoDir, npmCache } = info as { denoDir: string; npmCache: string };
  if (!npmCache.startsWith(`${denoDir}/`)) {
    throw new Error(`Cannot find the npm packages: ${npmCache} is not in ${denoDir}`);
  }
  const paths = findModules(
    Object.keys(JSON.parse(await Deno.readTextFile(`${repository}deno.lock`)).npm ?? {}),
    denoDir,
    npmCache.slice(denoDir.length + 1),
  );
  const directory = await cachedDirectory(
    vmCacheDirectory(),
    "modules",
    await digest([await imageRecipe(), ...paths].join("\n")),
    async (directory) => {
      await Deno.mkdir(`${directory}/root`);
      const target = `--target-directory=${directory}/root`;
      await run("env", ["-C", denoDir, "cp", "-R", "--parents", target, "--", ...paths], options);
      await makeDisk(`${directory}/root`, `${directory}/disk.ext4`, "1G", options);
    },
    { ...options, onWaiting: () => options.say("Waiting for another run to make the disks") },
  );
  return `${directory}/disk.ext4`;
}

/**
 * Paths below `denoDir` of the packages in a lock file, which names each as `name@version`, followed
 * by `_` and its peers if it has any. Packages for other systems are not there, and not needed.
 */
function findModules(locked: readonly string[], denoDir: string, npmCache: string): string[] {
  const paths = new Set<string>();
  const registries = [...Deno.readDirSync(`${denoDir}/${npmCache}`)].map(({ name }) => name).sort();
  for (const entry of locked) {
    const [, name, version] = /^(@?[^@]+)@([^_]+)/.exec(entry) ?? [];
    for (const registry of registries) {
      const path = `${npmCache}/${registry}/${name}`;
      for (const part of [`${path}/${version}`, `${path}/registry.json`]) {
        if (readInfo(`${denoDir}/${part}`)) paths.add(part);
      }
    }
  }
  return [...paths].sort();
}

/** A package in the version that apt would install. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
}

/**
 * What `apt-get --print-uris` prints, one line per package:
 * `'http://…/pool/main/b/busybox/busybox_1.35.0-4_amd64.deb' busybox_1%3a1.35.0-4_amd64.deb 452120 MD5Sum:…`
 */
export function parseUris(text: string): DebianPackage[] {
  const packages: DebianPackage[] = [];
  for (const [, name, version] of text.matchAll(/^'[^']+' ([^_ ]+)_([^_ ]+)_[^_ ]+\.deb \d+/gm)) {
    packages.push({ name: name!, version: decodeURIComponent(version!) });
  }
  return packages;
}

/**
 * The packages of the image, in the versions that Debian has, whatever this machine has installed
 * or downloaded.
 */
async function resolvePackages(options: VmDiskOptions): Promise<DebianPackage[]> {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-vm-apt-" });
  try {
    const status = `${directory}/status`;
    await Deno.writeTextFile(status, "");
    await Deno.mkdir(`${directory}/archives/partial`, { recursive: true });
    const args = [
      // With an empty list of what is installed, apt resolves the whole closure; of a package that
      // it finds in its archives it does not print the address.
      ...["-q", "-y", "-o", `Dir::State::status=${status}`, "-o", "Debug::NoLocking=1"],
      ...["-o", `Dir::Cache::archives=${directory}/archives`],
      ...["-o", "APT::Install-Recommends=0", "--print-uris", "install", ...PACKAGES],
    ];
    const resolve = () => runProgram("apt-get", args, { ...options, timeoutMs: 120_000 });
    let result = await resolve();
    if (result.code !== 0) {
      await updateLists(options);
      result = await resolve();
    }
    if (result.code !== 0) {
      throw new VmUnavailableError(`Debian's archive lacks something: ${faultLine(result.stderr)}`);
    }
    const packages = parseUris(result.stdout).filter(({ name }) => !LEFT_OUT.test(name));
    const lacking = PACKAGES.filter((wanted) => !packages.some(({ name }) => name === wanted));
    if (lacking.length > 0) {
      throw new Error(`Cannot make the disk: apt does not say where ${lacking.join(", ")} is`);
    }
    return packages;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** @throws {VmUnavailableError} If Debian cannot be reached. */
async function updateLists(options: VmDiskOptions): Promise<void> {
  const result = await runProgram(
    "apt-get",
    ["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Update::Error-Mode=any", "update"],
    { ...options, timeoutMs: 600_000 },
  );
  if (result.code !== 0) {
    throw new VmUnavailableError(`Debian cannot be reached: ${faultLine(result.stderr)}`);
  }
}

async function buildImage(
  directory: string,
  packages: readonly DebianPackage[],
  options: VmDiskOptions,
): Promise<void> {
  options.say("Making the disk of the virtual machine from Debian's packages");
  const root = `${directory}/root`;
  for (const path of DIRECTORIES) await Deno.mkdir(`${root}/${path}`, { recursive: true });
  for (const name of ["bin", "sbin", "lib", "lib64"]) {
    await Deno.symlink(`usr/${name}`, `${root}/${name}`);
  }
  const archives = `${directory}/archives`;
  await download(packages, archives, options);
  for (const { name } of Deno.readDirSync(archives)) {
    if (name.endsWith(".deb")) await unpack(`${archives}/${name}`, root, options);
  }
  await Deno.remove(archives, { recursive: true });

  const kernelRelease = await takeKernel(root, directory);
  // The package's script would do this.
  await run("depmod", ["-b", root, kernelRelease], { ...options, timeoutMs: 120_000 });
  for (const [path, target] of Object.entries(LINKS)) {
    await Deno.remove(`${root}/${path}`).catch(() => {/* not in this version */});
    await Deno.symlink(target, `${root}/${path}`);
  }
  for (const [path, text] of Object.entries(FILES)) {
    await Deno.writeTextFile(`${root}/${path}`, text);
  }
  await Deno.copyFile(Deno.execPath(), root + GUEST_PATHS.denoProgram);
  await Deno.chmod(root + GUEST_PATHS.denoProgram, 0o755);
  await makeDisk(root, `${directory}/disk.ext4`, "1G", options);
}

/** Fetches the packages, whose checksums apt verifies. */
async function download(
  packages: readonly DebianPackage[],
  directory: string,
  options: VmDiskOptions,
): Promise<void> {
  await Deno.mkdir(directory);
  const args = [
    ...["-C", directory, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download"],
    ...packages.map(({ name, version }) => `${name}=${version}`),
  ];
  const attempt = () => runProgram("env", args, { ...options, timeoutMs: 600_000 });
  let result = await attempt();
  if (result.code !== 0) {
    // Of packages that Debian has replaced since the last update, the old version is gone.
    await updateLists(options);
    result = await attempt();
  }
  if (result.code !== 0) {
    throw new VmUnavailableError(`Cannot download Debian's packages: ${faultLine(result.stderr)}`);
  }
}

/** Unpacks a package; its scripts are not run. */
async function unpack(archive: string, root: string, options: VmDiskOptions): Promise<void> {
  const { signal } = options;
  const source = new Deno.Command("dpkg-deb", {
    args: ["--fsys-tarfile", archive],
    stdin: "null",
    stdout: "piped",
    signal,
  }).spawn();
  // Unlike `dpkg-deb -x`, this keeps links such as /lib where a package has a directory.
  const target = new Deno.Command("tar", {
    args: [
      ...["-x", "-f", "-", "-C", root, "--keep-directory-symlink", "--wildcards"],
      ...LEFT_OUT_FILES.map((pattern) => `--exclude=${pattern}`),
    ],
    stdin: "piped",
    signal,
  }).spawn();
  const [copied, ...statuses] = await Promise.all([
    source.stdout.pipeTo(target.stdin).catch((error) => error),
    source.status,
    target.status,
  ]);
  signal.throwIfAborted();
  if (copied instanceof Error || statuses.some(({ success }) => !success)) {
    throw new Error(`Cannot unpack ${archive}: ${copied ? describeError(copied) : "see above"}`);
  }
}

/** Takes the kernel out of the root directory; returns its release. */
async function takeKernel(root: string, directory: string): Promise<string> {
  const releases = [...Deno.readDirSync(`${root}/usr/lib/modules`)].map(({ name }) => name);
  const [release] = releases;
  if (release === undefined || releases.length > 1) {
    throw new Error(`Cannot choose a kernel: the packages have ${releases.join(", ") || "none"}`);
  }
  const config = await Deno.readTextFile(`${root}/boot/config-${release}`);
  const absent = BUILT_IN.filter((name) => !config.includes(`\nCONFIG_${name}=y\n`));
  if (absent.length > 0) {
    throw new VmUnavailableError(
      `Debian's kernel ${release} does not boot without an initramfs: it has ${absent} not built in`,
    );
  }
  await Deno.rename(`${root}/boot/vmlinuz-${release}`, `${directory}/vmlinuz`);
  await Deno.remove(`${root}/boot`, { recursive: true });
  await Deno.writeTextFile(`${directory}/release`, release);
  return release;
}

/** Makes a sparse ext4 file system of the directory `root`, which is removed. */
async function makeDisk(
  root: string,
  disk: string,
  size: string,
  options: VmDiskOptions,
): Promise<void> {
  await run("mke2fs", [
    ...["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0"],
    ...["-d", root, disk, size],
  ], { ...options, timeoutMs: 300_000 });
  await Deno.remove(root, { recursive: true });
}

async function readImage(directory: string): Promise<VmImage> {
  return {
    kernelFile: `${directory}/vmlinuz`,
    rootDisk: `${directory}/disk.ext4`,
    kernelRelease: await Deno.readTextFile(`${directory}/release`),
  };
}

/** Changes with this file and with Deno. */
async function imageRecipe(): Promise<string> {
  const { size } = await Deno.stat(Deno.execPath());
  const text = await Deno.readTextFile(new URL(import.meta.url));
  return `deno${Deno.version.deno}-${await digest(`${size}\n${text}`)}`;
}

async function digest(text: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(hash, 0, 6).toHex();
}

/** The line of apt's that says what is wrong; the last one often only says that something is. */
function faultLine(text: string): string {
  const lines = text.trim().split("\n");
  return lines.find((line) => /^[EW]: Failed to fetch /.test(line)) ?? (lines.at(-1) ||
    "apt does not say why");
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}

function readInfo(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined;
  }
}
