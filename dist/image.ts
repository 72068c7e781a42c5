// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task image --output=FILE.tar [--target=aarch64] [--binary=FILE]`: the container image alone,
 * for `docker load`, `ctr images import`, `podman load` and skopeo.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { OperatorError } from "../src/errors.ts";
import { BUILD_OPTIONS, prepareBuild } from "./package/build.ts";
import { imageArchive } from "./package/image.ts";
import { runTool } from "./run.ts";

if (import.meta.main) await runTool(main);

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: Deno.args,
    options: { ...BUILD_OPTIONS, output: { type: "string" } },
  });
  if (values.output === undefined) throw new OperatorError("Cannot write the image: give --output");
  const { archive, name, size } = await imageArchive(await prepareBuild(values));
  await Deno.writeFile(values.output, archive);
  const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  console.log(
    `${values.output}: ${name}, ${mebibytes(archive.length)}, unpacked ${mebibytes(size)}`,
  );
}
