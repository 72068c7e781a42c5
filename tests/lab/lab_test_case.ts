import { deadline } from "../../src/util/time.ts";
import { LAB_TOOLS, missingTools, skippable, type Tool } from "../prerequisites.ts";
import { patient } from "../support/slowness.ts";

/** Options of {@linkcode labTest}. */
export interface LabTestOptions {
  /** The test's signal aborts after this, on a machine of usual speed. @default {120_000} */
  readonly timeoutMs?: number;
  /** What it runs beside what every lab does. */
  readonly needs?: readonly Tool[];
  /** What it runs where it opens no lab but namespaces alone. @default {LAB_TOOLS} */
  readonly tools?: readonly Tool[];
  /** Returns what else keeps it from running here, if anything does. */
  readonly obstacle?: () => string | undefined;
}

/** What a test that needs root is given. */
export interface LabTestContext {
  /** Aborts when the test's time is over. */
  readonly signal: AbortSignal;
  /** Runs a part of the test under a name of its own; several may run at the same time. */
  readonly step: (name: string, fn: () => Promise<void>) => Promise<boolean>;
}

/**
 * Declares a test that needs root. It is given a signal that aborts when its time is over. Without
 * root, or where a tool is missing that it needs, it is skipped and says so.
 */
export function labTest(
  name: string,
  body: (context: LabTestContext) => Promise<void>,
  options: LabTestOptions = {},
): void {
  const obstacle = Deno.uid() === 0
    ? missingTools([...options.tools ?? LAB_TOOLS, ...options.needs ?? []]) ??
      options.obstacle?.()
    : "needs root for network namespaces";
  Deno.test({
    name: skippable(name, obstacle),
    ignore: obstacle !== undefined,
    async fn(test) {
      using limit = deadline(patient(options.timeoutMs ?? 120_000), new AbortController());
      await body({
        signal: limit.signal,
        // Deno cannot tell whose a leak is among steps at the same time; the test as a whole may
        // have none.
        step: (name, fn) =>
          test.step({
            name,
            fn,
            sanitizeOps: false,
            sanitizeResources: false,
            sanitizeExit: false,
          }),
      });
    },
  });
}
