// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task image --output=FILE.tar [--target=aarch64] [--binary=FILE]`: the container image alone,
 * for `docker load`, `ctr images import`, `podman load` and skopeo.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describeError, OperatorError } from "../src/errors.ts";
import { BUILD_OPTIONS, prepareBuild } from "./package/build.ts";
import { imageArchive } from "./package/image.ts";

try {
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
} catch (error) {
  console.error(describeError(error));
  if (!(error instanceof OperatorError) && error instanceof Error) console.error(error.stack);
  Deno.exit(1);
}
