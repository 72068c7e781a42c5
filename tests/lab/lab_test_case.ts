import { deadline } from "../../src/util/time.ts";
import { patient } from "../support/slowness.ts";

/** Options of {@linkcode labTest}. */
export interface LabTestOptions {
  /** The test's signal aborts after this, on a machine of usual speed. @default {120_000} */
  readonly timeoutMs?: number;
}

/**
 * Declares a test that needs root. It is given a signal that aborts when its time is over; without
 * root it is skipped, and says so.
 */
export function labTest(
  name: string,
  body: (context: { readonly signal: AbortSignal }) => Promise<void>,
  options: LabTestOptions = {},
): void {
  const root = Deno.uid() === 0;
  Deno.test({
    name: root ? name : `${name} [skipped: needs root for network namespaces]`,
    ignore: !root,
    async fn() {
      using limit = deadline(patient(options.timeoutMs ?? 120_000), new AbortController());
      await body(limit);
    },
  });
}
