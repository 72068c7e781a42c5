/**
 * What tests and demo need beside Deno: programs, libraries and headers, and the Debian packages
 * that have them. As root on Debian the missing ones are installed; else they are listed.
 *
 * @module
 */
import { describeDownloadFailure } from "../dist/download_failure.ts";
import { OperatorError } from "../src/errors.ts";
import { runProgram } from "../src/util/process.ts";
import { run } from "./support/run.ts";

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

/** What the daemon itself needs, and `deno task compile` puts into the executable. */
export const LIBNL_NEEDS: readonly Need[] = [
  library("libnl-3.so.200", "libnl-3-200"),
  library("libnl-route-3.so.200", "libnl-route-3-200"),
];

/** What the lab runs. */
export const LAB_NEEDS: readonly Need[] = [
  program("ip", "iproute2"),
  program("nft", "nftables"),
  program("iptables", "iptables"),
  program("ping", "iputils-ping"),
  program("iperf3", "iperf3"),
  program("etcd", "etcd-server"),
  program("etcdctl", "etcd-client"),
  ...LIBNL_NEEDS,
];

/** What some tests need beside the lab. */
export const TEST_NEEDS: readonly Need[] = [
  ...LAB_NEEDS,
  program("openssl", "openssl"),
  program("gcc", "gcc"),
  header("stdio.h", "libc6-dev"),
  header("linux/rtnetlink.h", "linux-libc-dev"),
  header("libnl3/netlink/netlink.h", "libnl-3-dev"),
];

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
  addSystemDirectories();
  const missing = needs.filter((need) => !need.isPresent());
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(({ debianPackage }) => debianPackage))].sort();
  const titles = missing.map(({ title }) => title).join(", ");
  const command = `apt-get install ${packages.join(" ")}`;
  if (Deno.uid() !== 0) {
    throw new OperatorError(`Cannot go on without ${titles}: run "sudo ${command}" and try again`);
  }
  if (!isOnPath("apt-get")) {
    throw new OperatorError(
      `Cannot go on without ${titles}: install what Debian has in ${packages.join(", ")}`,
    );
  }
  options.say(`Installing what is missing (${titles}): ${command}`);
  await installPackages(packages, options);
  const still = missing.filter((need) => !need.isPresent()).map(({ title }) => title);
  if (still.length > 0) {
    throw new OperatorError(`Cannot go on without ${still.join(", ")}: "${command}" did not help`);
  }
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

async function installPackages(
  packages: readonly string[],
  options: EnsureOptions,
): Promise<void> {
  const aptGet = (...args: string[]) =>
    run("apt-get", ["-q", "-y", "-o", "DPkg::Lock::Timeout=300", ...args], {
      signal: options.signal,
      timeoutMs: 900_000,
      env: { DEBIAN_FRONTEND: "noninteractive" },
    });
  await aptGet("update");
  using _ = forbidServiceStarts();
  await aptGet("install", "--no-install-recommends", ...packages);
  if (packages.includes("etcd-server") && isOnPath("update-rc.d")) {
    // Installed for its program; the service would be started at the next boot.
    await run("update-rc.d", ["etcd", "disable"], options);
  }
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
