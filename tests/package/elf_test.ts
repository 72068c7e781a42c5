/** The glibc that the executable and all that it carries ask for. */
import assert from "node:assert/strict";
import { fetchPackages, findFile, pinnedPackages } from "../../dist/debian/packages.ts";
import { elfFilesIn, elfMachine, oldestGlibc, versionNeeds } from "../../dist/elf.ts";
import { GLIBC_FLOOR, TARGETS } from "../../dist/target.ts";
import { LIBNL_SONAMES } from "../../src/host/carried_libraries.ts";
import { missingTools, skippable, toolTest } from "../prerequisites.ts";
import { binaryObstacle, compiledBinary } from "../support/compiled_binary.ts";
import { run } from "../support/run.ts";
import { debianObstacle } from "./support.ts";

const signal = AbortSignal.timeout(600_000);

toolTest("versionNeeds() reads what readelf reads", ["gcc"], async () => {
  for (const path of [Deno.execPath(), "/bin/ls"]) {
    const report = await run("readelf", ["--version-info", "--wide", path], { signal });
    const needs = report.slice(report.indexOf(".gnu.version_r"));
    const expected = [...needs.matchAll(/ Name: (\S+)/g)].map(([, version]) => version);
    assert.ok(expected.length > 0);
    assert.deepEqual(
      versionNeeds(Deno.readFileSync(path)).map(({ version }) => version).sort(),
      expected.sort(),
      path,
    );
  }
});

Deno.test({
  name: skippable(
    "the pinned libnl runs on the oldest glibc promised, for each machine",
    debianObstacle,
  ),
  ignore: debianObstacle !== undefined,
  async fn() {
    for (const { debian, machine } of Object.values(TARGETS)) {
      const packages = await fetchPackages(pinnedPackages("libnl", debian));
      const entries = packages.flatMap(({ entries }) => entries);
      for (const soname of LIBNL_SONAMES) {
        const bytes = findFile(entries, soname)!;
        assert.equal(elfMachine(bytes), machine);
        assert.deepEqual(newerThanPromised([bytes]), []);
      }
    }
  },
});

const obstacle = binaryObstacle ?? debianObstacle ?? missingTools(["gcc"]);

Deno.test({
  name: skippable("the executable and what it carries run on the oldest glibc promised", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const files = elfFilesIn(Deno.readFileSync(await compiledBinary(signal)));
    assert.equal(files.length, 1 + LIBNL_SONAMES.length, "denort, libnl and libnl-route");
    assert.deepEqual(newerThanPromised(files), []);
    assert.equal(typeof oldestGlibc(files), "string");
  },
});

/** What `files` need that the promised glibc lacks, not going by the order of versions as one text. */
function newerThanPromised(files: readonly Uint8Array[]): string[] {
  const [, promised] = GLIBC_FLOOR.split(".").map(Number) as [number, number];
  return files.flatMap(versionNeeds)
    .filter(({ version }) => {
      const [, major, minor] = /^GLIBC_(\d+)\.(\d+)/.exec(version) ?? [];
      return Number(major) > 2 || Number(minor) > promised;
    })
    .map(({ library, version }) => `${library} ${version}`);
}
