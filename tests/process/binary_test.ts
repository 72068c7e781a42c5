/** The compiled daemon: on a host without libnl, through the guide, and through faults. */
import assert from "node:assert/strict";
import { type DaemonProgram, labTest } from "../lab/mod.ts";
import { binaryObstacle, compiledBinary } from "../support/compiled_binary.ts";
import { run } from "../support/run.ts";
import { settleAll } from "../support/settle_all.ts";
import { LIBNL_SONAMES } from "../../src/host/carried_libraries.ts";
import { openAllocLab, startReady } from "./support.ts";
import { note } from "./cloud_support.ts";
import { surviveFaults } from "./cloud_fault_scenarios.ts";
import { walkThrough } from "./cloud_walk_through.ts";

function binaryTest(
  name: string,
  body: (context: { signal: AbortSignal; path: string }) => Promise<void>,
): void {
  if (binaryObstacle !== undefined) {
    Deno.test({ name: `${name} [skipped: ${binaryObstacle}]`, ignore: true, fn() {} });
    return;
  }
  labTest(name, async ({ signal }) => {
    await body({ signal, path: await compiledBinary(signal) });
  }, { timeoutMs: 300_000 });
}

binaryTest(
  "the binary starts quickly and is no bigger than it has to be",
  async ({ path, signal }) => {
    const { size } = await Deno.stat(path);
    const times: number[] = [];
    for (let n = 0; n < 10; n++) {
      const started = performance.now();
      const output = await run(path, ["--version"], { signal });
      times.push(performance.now() - started);
      assert.match(output, /^flanneld \d+\.\d+\.\d+ \(Deno \d/);
    }
    const median = times.sort((a, b) => a - b)[5]!;
    note(
      `${(size / 2 ** 20).toFixed(0)} MiB; --version takes ${median.toFixed(0)} ms (median of 10)`,
    );
    assert.ok(size < 160 * 2 ** 20, `${size} bytes`);
  },
);

binaryTest("the binary has every part that it loads late", async ({ path, signal }) => {
  const output = await run(path, ["self-test"], { signal, timeoutMs: 60_000 });
  assert.deepEqual(output.trim().split("\n"), [
    "ok: etcd client",
    "ok: Alibaba Cloud client",
    "ok: packet worker",
    "ok: libnl (carried)",
    "ok: regular expressions",
    "ok: kubeconfig",
  ]);
});

binaryTest("the binary may read what docker-opts needs", async ({ path, signal }) => {
  const folder = await Deno.makeTempDir();
  const [input, output] = [`${folder}/subnet.env`, `${folder}/docker.env`];
  await Deno.writeTextFile(input, "FLANNEL_SUBNET=10.24.7.1/24\n");
  const args = ["docker-opts", "-i", "-f", input, "-d", output, `--config-file=${folder}/none`];
  await run(path, args, { signal });
  assert.equal(await Deno.readTextFile(output), 'DOCKER_OPT_BIP="--bip=10.24.7.1/24"\n');
  await Deno.remove(folder, { recursive: true });
});

binaryTest(
  "where the host has no libnl, the binary uses the one it carries",
  async ({ path, signal }) => {
    await using lab = await openAllocLab({ signal });
    const [host] = lab.hosts;
    // `ip netns exec` gives the program a mount namespace of its own, which hides what it mounts.
    const wrapper = `${lab.directory}/without-libnl`;
    const hidden = await libraries(signal);
    assert.ok(hidden.length >= LIBNL_SONAMES.length);
    const hide = hidden.map((file) => `mount --bind /dev/null ${file}\n`).join("");
    // Neither there nor in TMPDIR can anything be written.
    const script = `#!/bin/sh\nset -e\n${hide}export TMPDIR=/nowhere\nexec ${path} "$@"\n`;
    await Deno.writeTextFile(wrapper, script, { mode: 0o755 });
    const program: DaemonProgram = { kind: "binary", path: wrapper };
    const daemon = await startReady(host!, { signal, program });
    const maps = await Deno.readTextFile(`/proc/${daemon.process.pid}/maps`);
    for (const soname of LIBNL_SONAMES) {
      assert.match(maps, new RegExp(`/memfd:${soname.replaceAll(".", "\\.")} `));
    }
    assert.ok(hidden.every((file) => !maps.includes(`${file}\n`)), "the host's own is not used");
    const left = [...Deno.readDirSync(Deno.env.get("TMPDIR") ?? "/tmp")]
      .filter(({ name }) => name.startsWith("flanneld-lib-"));
    assert.deepEqual(left, [], "nothing is left on the disk");
    await daemon.stop();

    const usual = await startReady(host!, { signal, program: { kind: "binary", path } });
    const mapped = await Deno.readTextFile(`/proc/${usual.process.pid}/maps`);
    assert.doesNotMatch(
      mapped,
      /memfd:libnl|flanneld-lib-/,
      "where the host has them, its own are used",
    );
  },
);

/** Where this machine has libnl, links resolved. */
async function libraries(signal: AbortSignal): Promise<string[]> {
  const found = await run("find", [
    ...["-L", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "-maxdepth", "2"],
    ...["(", "-name", "libnl-3.so*", "-o", "-name", "libnl-route-3.so*", ")"],
    ...["-type", "f"],
  ], { signal });
  const files = found.split("\n").filter((line) => line !== "");
  return [...new Set(await Promise.all(files.map((file) => Deno.realPath(file))))];
}

binaryTest(
  "the binary walks through the guide, and survives a service that answers badly",
  async ({ path, signal }) => {
    const options = { signal, program: { kind: "binary", path } } as const;
    await settleAll([
      walkThrough(options),
      surviveFaults([
        "the answer to a create is lost",
        "a create that was done is answered with an error",
        "a proxy answers for a while",
        "the service fails for a while",
      ], options),
    ]);
  },
);
