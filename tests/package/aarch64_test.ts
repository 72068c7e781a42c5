/**
 * What depends on the machine, on another one: the bindings of libc and libnl and the packet path's
 * system calls, run by Deno for aarch64 on an emulated processor, with Debian's libraries for it.
 */
import assert from "node:assert/strict";
import { fetchPackages, pinnedPackages } from "../../dist/debian/packages.ts";
import { sorted } from "../../dist/package/files.ts";
import { writeTar } from "../../dist/package/tar.ts";
import { REPOSITORY } from "../lab/mod.ts";
import { missingTools, skippable } from "../prerequisites.ts";
import { run } from "../support/run.ts";
import { debianObstacle } from "./support.ts";

/**
 * Files and names of tests: those that start no Deno of their own, which the kernel could not run,
 * and are not slow where each instruction is translated.
 */
const TESTS: readonly (readonly [path: string, filter: string])[] = [
  ["ffi/libc/", ""],
  ["ffi/libnl/", "/^a closed socket|^libnl's error codes/"],
  ["ffi/libnl_route/", ""],
  ["tests/dataplane/send_batch_test.ts", ""],
  ["tests/dataplane/packet_path_test.ts", "/^Ingress |^with NATTraversal/"],
];

const obstacle = missingTools(["qemu-aarch64-static"]) ?? debianObstacle ??
  (Deno.build.arch === "aarch64" ? "all tests run on aarch64 here" : undefined);

Deno.test({
  name: skippable("bindings and system calls fit aarch64", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const signal = AbortSignal.timeout(10 * 60_000);
    const directory = await Deno.makeTempDir({ prefix: "flanneld-aarch64-" });
    const root = `${directory}/root`;
    await Deno.mkdir(root);
    for (const purpose of ["old-system", "libnl"] as const) {
      for (const { entries } of await fetchPackages(pinnedPackages(purpose, "arm64"))) {
        await Deno.writeFile(`${directory}/tar`, writeTar(sorted(entries), 0));
        await run("tar", ["-xf", `${directory}/tar`, "-C", root], { signal });
      }
    }
    const name = `@deno/linux-arm64-glibc@${Deno.version.deno}`;
    const pack = ["pack", "--silent", `--pack-destination=${directory}`, name];
    const file = (await run("npm", pack, { signal, timeoutMs: 180_000 })).trim();
    await run("tar", ["-xzf", `${directory}/${file}`, "-C", directory], { signal });
    const emulated = ["-L", root, `${directory}/package/deno`];

    const target = await run("qemu-aarch64-static", [
      ...emulated,
      ...["eval", "console.log(Deno.build.target)"],
    ], { signal });
    assert.equal(target.trim(), "aarch64-unknown-linux-gnu");
    for (const [path, filter] of TESTS) {
      const report = await run("qemu-aarch64-static", [
        ...[...emulated, "test", "-A", "--no-check", "--cached-only"],
        ...[`--filter=${filter}`, REPOSITORY + path],
      ], { signal, timeoutMs: 300_000, env: { NO_COLOR: "1" } });
      assert.match(report, /^ok \| [1-9]\d* passed \| 0 failed/m);
    }
    await Deno.remove(directory, { recursive: true });
  },
});
