// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task package [--output=DIRECTORY] [--target=aarch64] [--binary=FILE]`: compiles flanneld, or
 * takes FILE, and packs it as tar.gz, .deb, .rpm and container image, with SHA256SUMS. The same
 * commit gives the same bytes.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Build, BUILD_OPTIONS, prepareBuild } from "./package/build.ts";
import { prepareParts, tarballEntries } from "./package/contents.ts";
import { debianPackage, rpmPackage } from "./package/distributions.ts";
import { type Bytes, sorted } from "./package/files.ts";
import { gzip } from "./package/gzip.ts";
import { imageArchive } from "./package/image.ts";
import { writeTar } from "./package/tar.ts";
import { ROOT, runTool } from "./run.ts";
import { TARGETS } from "./target.ts";

if (import.meta.main) await runTool(main);

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      ...BUILD_OPTIONS,
      output: { type: "string", default: join(ROOT, "packages") },
    },
  });
  const build = await prepareBuild(values);
  await Deno.mkdir(values.output, { recursive: true });
  const sums: string[] = [];
  for await (const [name, bytes] of packages(build)) {
    await Deno.writeFile(join(values.output, name), bytes);
    const sum = createHash("sha256").update(bytes).digest("hex");
    sums.push(`${sum}  ${name}\n`);
    console.log(`${join(values.output, name)}: ${(bytes.length / 2 ** 20).toFixed(1)} MiB`);
  }
  // In the order of names, which does not tell in which they were made.
  const sorted = sums.toSorted((a, b) => a.slice(66) < b.slice(66) ? -1 : 1).join("");
  await Deno.writeTextFile(join(values.output, "SHA256SUMS"), sorted);
}

/** Names and bytes of all packages, one after the other: together they would need much memory. */
async function* packages(build: Build): AsyncGenerator<readonly [name: string, bytes: Bytes]> {
  const { version, target, epoch } = build;
  const { debian } = TARGETS[target];
  const parts = await prepareParts(build);
  const name = `flanneld-${version}-linux-${target}`;
  yield [
    `${name}.tar.gz`,
    gzip(writeTar(sorted(tarballEntries(build, parts)), epoch, `${name}/`)),
  ];
  yield [`flanneld_${version}_${debian}.deb`, debianPackage(build, parts)];
  yield [`flanneld-${version}-1.${target}.rpm`, rpmPackage(build, parts)];
  const { archive, bill } = await imageArchive(build);
  yield [`flanneld-${version}-image-${debian}.tar`, archive];
  yield [`flanneld-${version}-image-${debian}.cdx.json`, new TextEncoder().encode(bill)];
}
