/** The packages: the same bytes for the same sources, installed and removed by Debian's own tools. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { fetchPackages, findFile, pinnedPackages } from "../../dist/debian/packages.ts";
import { elfFilesIn } from "../../dist/elf.ts";
import { concat, sorted, toBytes } from "../../dist/package/files.ts";
import { writeTar } from "../../dist/package/tar.ts";
import { type DebianArchitecture, GLIBC_FLOOR } from "../../dist/target.ts";
import { LIBNL_SONAMES } from "../../src/host/carried_libraries.ts";
import { runProgram } from "../../src/util/process.ts";
import { REPOSITORY } from "../lab/mod.ts";
import { missingTools, skippable } from "../prerequisites.ts";
import { binaryObstacle, compiledBinary } from "../support/compiled_binary.ts";
import { run } from "../support/run.ts";
import {
  ARCHITECTURE,
  BareRoot,
  debianObstacle,
  newerThanPromised,
  pack,
  Packages,
  unpackImage,
} from "./support.ts";

const signal = AbortSignal.timeout(14 * 60_000);
const { version } = JSON.parse(await Deno.readTextFile(`${REPOSITORY}deno.json`));

/** A program that can be packed: any for old systems will do, and a small one does it fast. */
async function smallProgram(architecture: DebianArchitecture): Promise<string> {
  const libraries = await fetchPackages(pinnedPackages("libnl", architecture));
  const program = findFile(libraries.flatMap(({ entries }) => entries), "libnl-3.so.200")!;
  const path = await Deno.makeTempFile();
  await Deno.writeFile(path, concat([program, toBytes("Deno/9.9.9")]));
  return path;
}

Deno.test({
  name: skippable("two runs give the same packages", debianObstacle),
  ignore: debianObstacle !== undefined,
  async fn() {
    const directory = await Deno.makeTempDir();
    const binary = await smallProgram(ARCHITECTURE);
    const sums = await Promise.all(["UTC", "Asia/Shanghai"].map(async (TZ) => {
      const output = `${directory}/${TZ}`;
      await pack(binary, output, { signal, env: { TZ, LC_ALL: TZ === "UTC" ? "C" : "C.UTF-8" } });
      return await Deno.readTextFile(`${output}/SHA256SUMS`);
    }));
    assert.equal(sums[0], sums[1]);
    assert.equal(sums[0]!.trim().split("\n").length, 5);
    await Deno.remove(directory, { recursive: true });
    await Deno.remove(binary);
  },
});

const foreignObstacle = debianObstacle ??
  missingTools(["dpkg", "rpm", "skopeo", "qemu-aarch64-static"]) ??
  (Deno.build.arch === "x86_64" ? undefined : "needs x86_64");

Deno.test({
  name: skippable("packages for aarch64 are made on x86_64", foreignObstacle),
  ignore: foreignObstacle !== undefined,
  async fn() {
    const directory = await Deno.makeTempDir();
    const binary = await smallProgram("arm64");
    await assert.rejects(pack(binary, directory, { signal }), /it is for another machine/);
    await pack(binary, directory, { signal, args: ["--target=aarch64"] });
    const says = async (program: string, ...args: string[]) =>
      (await run(program, args, { signal, timeoutMs: 60_000 })).trim();
    const base = `${directory}/flanneld`;
    assert.equal(
      await says("dpkg-deb", "--field", `${base}_${version}_arm64.deb`, "Architecture"),
      "arm64",
    );
    const rpm = `${base}-${version}-1.aarch64.rpm`;
    assert.equal(await says("rpm", "-qp", "--queryformat=%{ARCH}", rpm), "aarch64");
    const image = `${base}-${version}-image-arm64.tar`;
    const inspected = await says("skopeo", "inspect", `docker-archive:${image}`);
    assert.equal(JSON.parse(inspected).Architecture, "arm64");
    const root = `${directory}/root`;
    await unpackImage(image, root, signal);
    // The nft variant and nft speak Netfilter's netlink, which is not emulated.
    const iptables = `${root}/usr/sbin/xtables-legacy-multi`;
    assert.match(
      await says("qemu-aarch64-static", "-L", root, iptables, "iptables", "--version"),
      /^iptables v1\./,
    );
    await Deno.remove(directory, { recursive: true });
    await Deno.remove(binary);
  },
});

const compileObstacle = binaryObstacle ?? debianObstacle ??
  (Deno.env.has("LAB_BINARY") ? "tests a given binary" : undefined);

const glibcObstacle = binaryObstacle ?? debianObstacle;

Deno.test({
  name: skippable(
    "the executable and what it carries run on the oldest glibc promised",
    glibcObstacle,
  ),
  ignore: glibcObstacle !== undefined,
  async fn() {
    const files = elfFilesIn(await Deno.readFile(await compiledBinary(signal)));
    assert.equal(files.length, 1 + LIBNL_SONAMES.length, "denort, libnl and libnl-route");
    assert.deepEqual(newerThanPromised(files), []);
  },
});

Deno.test({
  name: skippable("two compilations give the same executable", compileObstacle),
  ignore: compileObstacle !== undefined,
  async fn() {
    const first = await Deno.readFile(await compiledBinary(signal));
    const path = await Deno.makeTempFile();
    const compile = `${REPOSITORY}dist/compile.ts`;
    await run(Deno.execPath(), ["run", "-A", "--cached-only", compile, `--output=${path}`], {
      signal,
      timeoutMs: 240_000,
    });
    assert.ok(Buffer.from(first).equals(await Deno.readFile(path)));
    await Deno.remove(path);
  },
});

const obstacle = binaryObstacle ?? debianObstacle ??
  missingTools(["dpkg", "rpm", "skopeo", "runc"]) ??
  (Deno.uid() === 0 ? undefined : "needs root");

Deno.test({
  name: skippable("the packages of the compiled program", obstacle),
  ignore: obstacle !== undefined,
  async fn(test) {
    await using packages = await Packages.make(signal);
    const step = async (name: string, fn: () => Promise<void>) => void await test.step(name, fn);

    await step("checksums fit, and nothing is left out of them", async () => {
      const options = { signal, timeoutMs: 60_000 };
      const { directory } = packages;
      const checked = await run(
        "sh",
        ["-c", 'cd "$0" && sha256sum -c SHA256SUMS', directory],
        options,
      );
      const lines = checked.trim().split("\n");
      assert.ok(lines.every((line) => line.endsWith(": OK")), checked);
      assert.equal(lines.length, [...Deno.readDirSync(directory)].length - 1);
    });
    await step(
      "the tarball has what a user needs to install by hand",
      () => checkTarball(packages),
    );
    await step("dpkg installs, upgrades, removes and purges", () => checkDebian(packages));
    await step("rpm installs, upgrades and removes", () => checkRpm(packages));
    await step("the executable runs on an old glibc", () => checkOldSystem(packages));
    await step("skopeo reads the image both ways, and runc runs it", () => checkImage(packages));
  },
});

/** A program with arguments that are always the same; its `refuse` returns why it would not. */
function installer(program: string, ...always: string[]) {
  const options = { signal, timeoutMs: 120_000 };
  return {
    run: (...args: string[]) => run(program, [...always, ...args], options),
    async refuse(...args: string[]): Promise<string> {
      const { code, stderr } = await runProgram(program, [...always, ...args], options);
      assert.notEqual(code, 0, `${program} ${args.join(" ")}`);
      return stderr;
    },
  };
}

async function checkTarball(packages: Packages): Promise<void> {
  const directory = await Deno.makeTempDir();
  const tarball = packages.file(".tar.gz");
  await run("tar", ["-xzf", tarball, "-C", directory], { signal, timeoutMs: 60_000 });
  const top = `${directory}/flanneld-${version}-linux-${Deno.build.arch}`;
  assert.match(await run(`${top}/flanneld`, ["--version"], { signal }), /^flanneld \d/);
  for (const name of ["flanneld.service", "docker-flannel.conf", "LICENSE", "docs/reference.md"]) {
    assert.ok(Deno.statSync(`${top}/${name}`).isFile, name);
  }
  assert.equal(
    await Deno.readTextFile(`${top}/completions/bash/flanneld`),
    await run(`${top}/flanneld`, ["completion", "bash"], { signal }),
  );
  assert.match(await Deno.readTextFile(`${top}/flanneld.8`), /^\.TH FLANNELD 8 /m);
  const bill = JSON.parse(await Deno.readTextFile(`${top}/flanneld.cdx.json`));
  assert.equal(bill.bomFormat, "CycloneDX");
  const purls: string[] = bill.components.map(({ purl }: { purl: string }) => purl);
  for (
    const start of ["pkg:npm/etcd3@", "pkg:npm/%40alicloud/pop-core@", "pkg:deb/debian/libnl-3-"]
  ) {
    assert.ok(purls.some((purl) => purl.startsWith(start)), `${start} in ${purls}`);
  }
  assert.ok(
    !purls.some((purl) => /fast-check|%40types/.test(purl)),
    "what only tests use is not in it",
  );
  assert.equal(new Set(purls).size, purls.length);
  const licenses = await Deno.readTextFile(`${top}/THIRD-PARTY-LICENSES.txt`);
  for (const { name, version } of bill.components) {
    assert.ok(licenses.includes(`\n${name} ${version} (`));
  }
  await Deno.remove(directory, { recursive: true });
}

async function checkDebian(packages: Packages): Promise<void> {
  await using root = await BareRoot.make(packages.file(`-image-${ARCHITECTURE}.tar`), signal);
  const deb = packages.file(".deb");
  const dpkg = installer("dpkg", "--force-not-root", "--force-unsafe-io", `--root=${root.path}`);
  const settings = `${root.path}/etc/flanneld.env`;

  const status = `${root.path}/var/lib/dpkg/status`;
  const whole = await Deno.readTextFile(status);
  await Deno.writeTextFile(
    status,
    whole.replaceAll(/^Package: (iptables|nftables)$/gm, "Package: x$1"),
  );
  assert.match(await dpkg.refuse("--install", deb), /depends on iptables \| nftables/);
  await dpkg.run("--purge", "flanneld");
  await Deno.writeTextFile(status, whole);
  await root.systemctlCalls();

  await dpkg.run("--install", deb);
  assert.deepEqual(await root.systemctlCalls(), ["daemon-reload"], "nothing is started or enabled");
  assert.match(
    await run(`${root.path}/usr/bin/flanneld`, ["--version"], { signal }),
    /^flanneld \d/,
  );
  assert.match(
    await Deno.readTextFile(`${root.path}/usr/lib/systemd/system/flanneld.service`),
    /^ExecStart=\/usr\/bin\/flanneld$/m,
  );
  assert.equal((await Deno.stat(settings)).mode! & 0o777, 0o600);
  for (
    const path of ["bash-completion/completions/flanneld", "zsh/vendor-completions/_flanneld"]
  ) assert.ok(root.has(`usr/share/${path}`), path);
  assert.match(
    await run("gzip", ["-dc", `${root.path}/usr/share/man/man8/flanneld.8.gz`], { signal }),
    /^\.TH FLANNELD 8 /m,
  );
  assert.equal((await dpkg.run("--verify", "flanneld")).trim(), "");

  await Deno.writeTextFile(settings, "FLANNELD_IP_MASQ=true\n");
  await dpkg.run("--force-confold", "--install", deb);
  assert.deepEqual(await root.systemctlCalls(), [
    "daemon-reload", // of the removed version's postrm
    "daemon-reload",
    "--no-block try-restart flanneld.service",
  ]);
  assert.equal(await Deno.readTextFile(settings), "FLANNELD_IP_MASQ=true\n");

  await dpkg.run("--remove", "flanneld");
  assert.deepEqual(await root.systemctlCalls(), [
    "--no-reload disable --now flanneld.service",
    "daemon-reload",
  ]);
  assert.ok(!root.has("usr/bin/flanneld") && root.has("etc/flanneld.env"));
  await dpkg.run("--purge", "flanneld");
  assert.ok(!root.has("etc/flanneld.env") && !root.has("usr/share/doc/flanneld"));
}

async function checkRpm(packages: Packages): Promise<void> {
  await using root = await BareRoot.make(packages.file(`-image-${ARCHITECTURE}.tar`), signal);
  const file = packages.file(".rpm");
  const rpm = installer("rpm", `--root=${root.path}`, "--dbpath=/var/lib/rpm");
  assert.match(await run("rpm", ["--checksig", "--nosignature", file], { signal }), /digests OK/);
  await rpm.run("--initdb");
  const refusal = await rpm.refuse("--install", file);
  assert.match(refusal, /libc\.so\.6\(GLIBC_2\.\d+\)\(64bit\) is needed/);
  assert.match(refusal, /\(iptables or nftables\) is needed/);
  const required = await run("rpm", ["-qp", "--requires", file], { signal });
  const [, minor] = /^libc\.so\.6\(GLIBC_2\.(\d+)\)\(64bit\)$/m.exec(required)!;
  assert.ok(Number(minor) <= Number(GLIBC_FLOOR.split(".")[1]));

  await rpm.run("--install", "--nodeps", file);
  assert.deepEqual(await root.systemctlCalls(), ["daemon-reload"], "nothing is started or enabled");
  assert.match(
    await run(`${root.path}/usr/bin/flanneld`, ["--version"], { signal }),
    /^flanneld \d/,
  );
  assert.equal((await rpm.run("--verify", "--nodeps", "flanneld")).trim(), "");
  assert.equal((await rpm.run("-q", "--configfiles", "flanneld")).trim(), "/etc/flanneld.env");

  const settings = `${root.path}/etc/flanneld.env`;
  await Deno.writeTextFile(settings, "FLANNELD_IP_MASQ=true\n");
  await rpm.run("--upgrade", "--nodeps", "--replacepkgs", file);
  assert.deepEqual(await root.systemctlCalls(), [
    "daemon-reload",
    "daemon-reload",
    "--no-block try-restart flanneld.service",
  ]);
  assert.equal(await Deno.readTextFile(settings), "FLANNELD_IP_MASQ=true\n");

  await rpm.run("--erase", "flanneld");
  assert.deepEqual(await root.systemctlCalls(), [
    "--no-reload disable --now flanneld.service",
    "daemon-reload",
  ]);
  assert.ok(!root.has("usr/bin/flanneld") && !root.has("usr/share/doc/flanneld"));
  assert.ok(root.has("etc/flanneld.env.rpmsave"));
}

/** Debian 11's glibc is older than that of Alibaba Cloud Linux 3, and as old as Ubuntu 20.04's. */
async function checkOldSystem(packages: Packages): Promise<void> {
  const directory = await Deno.makeTempDir();
  const bundle = new Bundle(directory);
  const tarball = packages.file(".tar.gz");
  await Deno.mkdir(`${bundle.root}/usr`, { recursive: true });
  const options = { signal, timeoutMs: 60_000 };
  await run("tar", ["-xzf", tarball, "-C", bundle.root, "--strip-components=1"], options);
  for (const { entries } of await fetchPackages(pinnedPackages("old-system", ARCHITECTURE))) {
    const tar = `${directory}/entries.tar`;
    await Deno.writeFile(tar, writeTar(sorted(entries), 0));
    await run("tar", ["-xf", tar, "-C", bundle.root], options);
  }
  const report = await bundle.run("/flanneld", "self-test");
  assert.match(report, /^ok: libnl \(carried\)$/m);
  assert.doesNotMatch(report, /^failed/m);
  assert.ok([...Deno.readDirSync(`${bundle.root}/lib/${Deno.build.arch}-linux-gnu`)]
    .some(({ name }) => name === "libc-2.31.so"));
  await Deno.remove(directory, { recursive: true });
}

async function checkImage(packages: Packages): Promise<void> {
  const archive = packages.file(`-image-${ARCHITECTURE}.tar`);
  const directory = await Deno.makeTempDir();
  for (const source of [`oci-archive:${archive}`, `docker-archive:${archive}`]) {
    const target = `dir:${directory}/${source.split(":")[0]}`;
    // Reading it checks the digests of all parts.
    await run("skopeo", ["--insecure-policy", "copy", source, target], {
      signal,
      timeoutMs: 120_000,
    });
    const { Architecture, Labels } = JSON.parse(
      await run("skopeo", ["inspect", source], { signal }),
    );
    assert.equal(Architecture, ARCHITECTURE);
    assert.equal(Labels["org.opencontainers.image.version"], version);
  }
  const bundle = new Bundle(directory);
  await unpackImage(archive, bundle.root, signal);
  const inImage = (...args: string[]) => bundle.run(...args);
  const report = await inImage("/usr/bin/flanneld", "self-test");
  assert.match(report, /^ok: libnl \(carried\)$/m);
  assert.doesNotMatch(report, /^failed/m);
  assert.match(await inImage("/opt/bin/flanneld", "--version"), /^flanneld \d/);
  assert.match(await inImage("iptables", "--version"), /\(nf_tables\)/);
  assert.match(await inImage("ip6tables-save", "--version"), /\(nf_tables\)/);
  assert.match(await inImage("/usr/lib/iptables-legacy/iptables", "--version"), /\(legacy\)/);
  assert.match(await inImage("nft", "list", "ruleset"), /^$/);
  assert.match(await inImage("iptables", "-w", "-S", "FORWARD"), /^-P FORWARD ACCEPT/);
  const plugins = [...Deno.readDirSync(`${bundle.root}/usr/lib/cni`)].map(({ name }) => name);
  assert.deepEqual(plugins.sort(), ["bridge", "host-local", "loopback", "portmap"]);
  const certificates = await Deno.readTextFile(
    `${bundle.root}/etc/ssl/certs/ca-certificates.crt`,
  );
  assert.ok(certificates.match(/-----BEGIN CERTIFICATE-----/g)!.length > 100);
  await Deno.remove(directory, { recursive: true });
}

/** A directory that runc runs programs in. */
class Bundle {
  readonly root: string;

  constructor(readonly directory: string) {
    this.root = `${directory}/rootfs`;
  }

  async run(...args: string[]): Promise<string> {
    const config = JSON.stringify(runtimeConfig(args));
    await Deno.writeTextFile(`${this.directory}/config.json`, config);
    const id = `flanneld-test-${Deno.pid}`;
    const bundle = `--bundle=${this.directory}`;
    return await run("runc", ["run", bundle, id], { signal, timeoutMs: 60_000 });
  }
}

/** What runc is told: the rights of the Kubernetes manifest, and a network of its own. */
function runtimeConfig(args: readonly string[]) {
  const capabilities = ["CAP_NET_ADMIN", "CAP_NET_RAW"];
  return {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 0, gid: 0 },
      args,
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
      cwd: "/",
      capabilities: {
        ...{ bounding: capabilities, effective: capabilities, permitted: capabilities },
      },
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: true },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs" },
      { destination: "/run", type: "tmpfs", source: "tmpfs" },
      { destination: "/tmp", type: "tmpfs", source: "tmpfs" },
    ],
    linux: {
      namespaces: ["pid", "network", "ipc", "mount"].map((type) => ({ type })),
    },
  };
}
