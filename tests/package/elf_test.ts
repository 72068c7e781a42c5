/** What an ELF file asks of the system, and what the carried libraries ask. */
import assert from "node:assert/strict";
import { fetchPackages, findFile, pinnedPackages } from "../../dist/debian/packages.ts";
import { elfMachine, versionNeeds } from "../../dist/elf.ts";
import { TARGETS } from "../../dist/target.ts";
import { LIBNL_SONAMES } from "../../src/host/carried_libraries.ts";
import { skippable, toolTest } from "../prerequisites.ts";
import { run } from "../support/run.ts";
import { debianObstacle, newerThanPromised } from "./support.ts";

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
