/** The machines that flanneld is built for, and what each kind of package calls them. @module */
import { OperatorError } from "../src/errors.ts";

/** A machine, by the name that Deno, RPM and the kernel have for it. */
export type Target = "x86_64" | "aarch64";

/** Each target's other names: Debian's, which is also that of container images, and of ELF. */
export const TARGETS = {
  x86_64: { debian: "amd64", machine: 62 },
  aarch64: { debian: "arm64", machine: 183 },
} as const satisfies Readonly<
  Record<Target, { readonly debian: string; readonly machine: number }>
>;

/** An architecture as Debian and container images call it. */
export type DebianArchitecture = (typeof TARGETS)[Target]["debian"];

/** The oldest glibc on which packages promise to run, that of Enterprise Linux 8 and Debian 10. */
export const GLIBC_FLOOR = "2.28";

/** @throws {OperatorError} If nothing is built for it. */
export function parseTarget(text: string): Target {
  if (text in TARGETS) return text as Target;
  throw new OperatorError(
    `Cannot build for ${text}: --target is one of ${Object.keys(TARGETS).join(", ")}`,
  );
}
