/**
 * What tests, demo and compilation need beside Deno: programs, libraries and headers, and the Debian
 * packages that have them. As root on Debian the missing ones are installed; else they are listed,
 * and tests that need them are skipped with that reason.
 *
 * @module
 */
import { describeDownloadFailure } from "../dist/download_failure.ts";
import { OperatorError } from "../src/errors.ts";
import { runProgram } from "../src/util/process.ts";

/** Something that has to be on this machine. */
export interface Need {
  /** What it is, as in `etcd` or `netlink/netlink.h`. */
  readonly title: string;
  /** The Debian package that has it. */
  readonly debianPackage: string;
  isPresent(): boolean;
}

/** Where Debian has system programs, which the PATH of `su` leaves out. */
const SYSTEM_DIRECTORIES = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/** Everything that the project's programs and tests use beside Deno, npm and Debian's essentials. */
const TOOLS = {
  "ip": program("ip", "iproute2"),
  "nft": program("nft", "nftables"),
  "iptables": program("iptables", "iptables"),
  "ping": program("ping", "iputils-ping"),
  "iperf3": program("iperf3", "iperf3"),
  "etcd": program("etcd", "etcd-server"),
  "etcdctl": program("etcdctl", "etcd-client"),
  "libnl": library("libnl-3.so.200", "libnl-3-200"),
  "libnl-route": library("libnl-route-3.so.200", "libnl-route-3-200"),
  "openssl": program("openssl", "openssl"),
  "tcpdump": program("tcpdump", "tcpdump"),
  "ethtool": program("ethtool", "ethtool"),
  "strace": program("strace", "strace"),
  "bash": program("bash", "bash"),
  "zsh": program("zsh", "zsh"),
  "fish": program("fish", "fish"),
  "groff": program("groff", "groff"),
  "man": program("man", "man-db"),
  "mandoc": program("mandoc", "mandoc"),
  "gcc": program("gcc", "gcc"),
  "dpkg": program("dpkg", "dpkg"),
  "rpm": program("rpm", "rpm"),
  "qemu-aarch64-static": program("qemu-aarch64-static", "qemu-user-static"),
  "skopeo": program("skopeo", "skopeo"),
  "runc": program("runc", "runc"),
  "libc headers": header("stdio.h", "libc6-dev"),
  "kernel headers": header("linux/rtnetlink.h", "linux-libc-dev"),
  "systemd-nspawn": program("systemd-nspawn", "systemd-container"),
  "pgrep": program("pgrep", "procps"),
  "libnl headers": header("libnl3/netlink/route/link.h", "libnl-3-dev"),
} as const satisfies Readonly<Record<string, Need>>;

/** A name by which tests say what they need. */
export type Tool = keyof typeof TOOLS;

/** What every lab runs. */
export const LAB_TOOLS: readonly Tool[] = [
  ...["ip", "nft", "iptables", "ping", "etcd", "etcdctl", "libnl", "libnl-route"] as const,
];

/**
 * The program beside the checkout that makes machines with systemd, Docker and etcd, and where it
 * keeps the root that it has made once for all of them.
 */
export const MACHINES = {
  program: Deno.env.get("MACHINES") ??
    new URL("../../shared/machine/machines", import.meta.url).pathname,
  cache: Deno.env.get("MACHINE_CACHE") ?? "/var/cache/flanneld-machine",
};

/** What runs these machines. */
export const MACHINE_TOOLS: readonly Tool[] = ["ip", "systemd-nspawn", "pgrep"];

/** Whether the machines can be had without making their root, which takes a minute or two. */
export function hasMachines(): boolean {
  try {
    Deno.statSync(MACHINES.program);
    return [...Deno.readDirSync(MACHINES.cache)].some(({ name }) => name.endsWith(".complete"));
  } catch {
    return false;
  }
}

/** What compiles a C program. */
export const C_TOOLS: readonly Tool[] = ["gcc", "libc headers", "kernel headers"];

/** What the daemon itself needs, and `deno task compile` puts into the executable. */
export const LIBNL_NEEDS: readonly Need[] = [TOOLS.libnl, TOOLS["libnl-route"]];

/** What the demo runs. */
export const LAB_NEEDS: readonly Need[] = LAB_TOOLS.map((tool) => TOOLS[tool]);

/** What the tests run, all together. */
export const TEST_NEEDS: readonly Need[] = (Object.keys(TOOLS) as Tool[])
  .filter((tool) => !MACHINE_TOOLS.includes(tool) || LAB_TOOLS.includes(tool) || hasMachines())
  .map((tool) => TOOLS[tool]);

/** What this process has looked for. */
const presence = new Map<Tool, boolean>();

/**
 * Why a test that needs `tools` cannot run on this machine; `undefined` if it can.
 *
 * ```ts
 * const obstacle = missingTools(["tcpdump"]);
 * Deno.test({ name: skippable("…", obstacle), ignore: obstacle !== undefined, fn });
 * ```
 */
export function missingTools(tools: readonly Tool[]): string | undefined {
  addSystemDirectories();
  const missing = tools.filter((tool) => {
    if (!presence.has(tool)) presence.set(tool, TOOLS[tool].isPresent());
    return !presence.get(tool);
  }).map((tool): Need => TOOLS[tool]);
  if (missing.length === 0) return undefined;
  return `needs ${
    missing.map(({ title, debianPackage }) =>
      title === debianPackage ? title : `${title} (${debianPackage})`
    ).join(", ")
  }`;
}

/** The name of a test, which says why it is skipped if there is an obstacle. */
export function skippable(name: string, obstacle: string | undefined): string {
  return obstacle === undefined ? name : `${name} [skipped: ${obstacle}]`;
}

/** Declares a test that needs `tools`; where one is missing, the test is skipped and says so. */
export function toolTest(
  name: string,
  tools: readonly Tool[],
  fn: (test: Deno.TestContext) => void | Promise<void>,
): void {
  const obstacle = missingTools(tools);
  Deno.test({ name: skippable(name, obstacle), ignore: obstacle !== undefined, fn });
}

/** What the virtual machine needs beside the lab: an emulator, and what makes its disks. */
export const VM_NEEDS: readonly Need[] = [
  program("qemu-system-x86_64", "qemu-system-x86"),
  program("mke2fs", "e2fsprogs"),
  program("depmod", "kmod"),
];

/** Options of {@linkcode ensurePrerequisites}. */
export interface EnsureOptions {
  readonly signal: AbortSignal;
  /** Told, one line at a time, what is done. */
  readonly say: (line: string) => void;
}

/**
 * Makes sure that all of `needs` are there, installing Debian packages where that is possible.
 * A service that comes with a package is neither started nor left enabled.
 *
 * @throws {OperatorError} With all that is missing, if it cannot be installed.
 */
export async function ensurePrerequisites(
  needs: readonly Need[],
  options: EnsureOptions,
): Promise<void> {
  const { missing, reason } = await installMissing(needs, options);
  if (missing.length === 0) return;
  const titles = missing.map(({ title }) => title).join(", ");
  throw new OperatorError(`Cannot go on without ${titles}: ${reason}`);
}

/** What could not be had, and why. */
export interface StillMissing {
  readonly missing: readonly Need[];
  /** What is in the way, and what to do; empty if nothing is missing. */
  readonly reason: string;
}

/** Installs what it can of `needs`; returns what is missing then. */
export async function installMissing(
  needs: readonly Need[],
  options: EnsureOptions,
): Promise<StillMissing> {
  addSystemDirectories();
  const absent = () => needs.filter((need) => !need.isPresent());
  const missing = absent();
  if (missing.length === 0) return { missing, reason: "" };
  const packages = packagesOf(missing);
  const command = `apt-get install ${packages.join(" ")}`;
  if (Deno.uid() !== 0) return { missing, reason: `run "sudo ${command}" and try again` };
  if (!isOnPath("apt-get")) {
    return { missing, reason: `install what Debian has in ${packages.join(", ")}` };
  }
  const titles = missing.map(({ title }) => title).join(", ");
  options.say(`Installing what is missing (${titles}): ${command}`);
  const failure = await installPackages(packages, options);
  const still = absent();
  if (still.length === 0) return { missing: [], reason: "" };
  return {
    missing: still,
    reason: `"apt-get install ${packagesOf(still).join(" ")}" failed: ` +
      (failure ?? "the packages do not hold it"),
  };
}

function packagesOf(needs: readonly Need[]): string[] {
  return [...new Set(needs.map(({ debianPackage }) => debianPackage))].sort();
}

/**
 * Downloads the npm packages of `modules` into Deno's cache, so that processes in namespaces that
 * have no way out find them there.
 */
export async function cacheModules(
  modules: readonly string[],
  options: EnsureOptions,
): Promise<void> {
  const result = await runProgram(Deno.execPath(), ["cache", "--quiet", ...modules], {
    signal: options.signal,
    timeoutMs: 300_000,
  });
  if (result.code !== 0) {
    throw new OperatorError(
      describeDownloadFailure(result.stderr) ??
        `Cannot download the dependencies: ${result.stderr.trim()}`,
    );
  }
}

/** Installs all, or else as many as it can one by one; returns what was in the way of the last. */
async function installPackages(
  packages: readonly string[],
  options: EnsureOptions,
): Promise<string | undefined> {
  const aptGet = async (...args: string[]): Promise<string | undefined> => {
    const words = ["-q", "-y", "-o", "DPkg::Lock::Timeout=300", ...args];
    const { code, stderr, stdout } = await runProgram("apt-get", words, {
      signal: options.signal,
      timeoutMs: 900_000,
      env: { DEBIAN_FRONTEND: "noninteractive" },
    });
    if (code === 0) return undefined;
    const lines = (stderr.trim() || stdout.trim()).split("\n");
    return lines.find((line) => /^E: /.test(line)) ?? lines.at(-1) ?? `exit code ${code}`;
  };
  // Where it fails, the packages may be there all the same.
  const stale = await aptGet("-o", "APT::Update::Error-Mode=any", "update");
  using _ = forbidServiceStarts();
  let failure = await aptGet("install", "--no-install-recommends", ...packages);
  if (failure !== undefined && packages.length > 1 && stale === undefined) {
    for (const name of packages) {
      failure = await aptGet("install", "--no-install-recommends", name) ?? failure;
    }
  }
  if (packages.includes("etcd-server") && isOnPath("update-rc.d")) {
    // Installed for its program; the service would be started at the next boot.
    await runProgram("update-rc.d", ["etcd", "disable"], options);
  }
  return failure === undefined ? undefined : stale ?? failure;
}

/**
 * Debian starts a package's services right after installing it, unless this script forbids it
 * (invoke-rc.d(8)). One that is there already is somebody else's decision and is left alone.
 */
function forbidServiceStarts(): Disposable {
  const path = "/usr/sbin/policy-rc.d";
  try {
    Deno.writeTextFileSync(path, "#!/bin/sh\nexit 101\n", { createNew: true, mode: 0o755 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return { [Symbol.dispose]() {} };
  }
  return {
    [Symbol.dispose]() {
      Deno.removeSync(path);
    },
  };
}

function program(name: string, debianPackage: string): Need {
  return { title: name, debianPackage, isPresent: () => isOnPath(name) };
}

function library(soname: string, debianPackage: string): Need {
  const isPresent = () => {
    try {
      Deno.dlopen(soname, {}).close();
      return true;
    } catch {
      return false;
    }
  };
  return { title: soname, debianPackage, isPresent };
}

function header(name: string, debianPackage: string): Need {
  const paths = ["/usr/include", `/usr/include/${Deno.build.arch}-linux-gnu`]
    .map((directory) => `${directory}/${name}`);
  return { title: name, debianPackage, isPresent: () => paths.some(exists) };
}

function isOnPath(name: string): boolean {
  return (Deno.env.get("PATH") ?? "").split(":").some((directory) =>
    directory !== "" && exists(`${directory}/${name}`)
  );
}

/** Puts the system's directories on this process's PATH, and so on that of all it starts. */
function addSystemDirectories(): void {
  const present = (Deno.env.get("PATH") ?? "/usr/local/bin:/usr/bin:/bin").split(":");
  const absent = SYSTEM_DIRECTORIES.filter((directory) => !present.includes(directory));
  Deno.env.set("PATH", [...present, ...absent].join(":"));
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
