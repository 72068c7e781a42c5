/** What tests of packages share: whether Debian can be reached, and the packages made once. @module */
import { fetchPackages, pinnedPackages } from "../../dist/debian/packages.ts";
import { describeError } from "../../src/errors.ts";

/** Why Debian's packages cannot be had; `undefined` if they can. */
export const debianObstacle = await fetchPackages(pinnedPackages("libnl", "amd64")).then(
  () => undefined,
  (error: unknown) => describeError(error),
);
