// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task campaign [name …] [--short] [--seed=N]`: runs campaigns in their long form, one after
 * the other, on loopback and in namespaces of their own. Needs root. `deno task test` runs a short
 * form of each, in `tests/campaigns/*_test.ts`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describeError } from "../../src/errors.ts";
import { ensurePrerequisites, TEST_NEEDS } from "../prerequisites.ts";
import type { Campaign } from "./campaign.ts";

/** Each campaign by its name; loaded when it is run. */
export const CAMPAIGNS: Readonly<Record<string, () => Promise<{ readonly campaign: Campaign }>>> = {
  "etcd-silent": () => import("./etcd_silent.ts"),
  clocks: () => import("./clocks.ts"),
  clusters: () => import("./clusters.ts"),
  "hostile-api": () => import("./hostile_api.ts"),
  fuzz: () => import("./fuzz.ts"),
  health: () => import("./health.ts"),
  soak: () => import("./soak.ts"),
  "stalled-stderr": () => import("./stalled_stderr.ts"),
  "syscall-kill": () => import("./syscall_kill.ts"),
  "wrong-store": () => import("./wrong_store.ts"),
};

if (import.meta.main) Deno.exit(await main(Deno.args));

async function main(args: string[]): Promise<number> {
  let names: readonly string[];
  let seed: number;
  let short: boolean;
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        short: { type: "boolean", default: false },
        seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
      },
    });
    names = positionals;
    short = values.short;
    seed = Number(values.seed);
    if (!Number.isSafeInteger(seed) || seed < 0) throw new Error("--seed must be a whole number");
  } catch (error) {
    console.error(describeError(error));
    return 2;
  }
  const known = Object.keys(CAMPAIGNS);
  const unknown = names.filter((name) => !Object.hasOwn(CAMPAIGNS, name));
  if (names.length === 0 || unknown.length > 0) {
    if (unknown.length > 0) console.error(`Cannot run ${unknown.join(", ")}: no such campaign`);
    console.error("Usage: deno task campaign [--short] [--seed=N] name …");
    for (const name of known) {
      const { campaign } = await CAMPAIGNS[name]!();
      console.error(`  ${name.padEnd(16)} ${campaign.summary}`);
    }
    return 2;
  }
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(name, () => stop.abort(new Error(`interrupted by ${name}`)));
  }
  await ensurePrerequisites(TEST_NEEDS, { signal: stop.signal, say: console.log });
  let failed = 0;
  for (const name of names) {
    const { campaign } = await CAMPAIGNS[name]!();
    console.log(`campaign ${name} (seed ${seed}): ${campaign.summary}`);
    const started = performance.now();
    try {
      const figures = await campaign.run({
        long: !short,
        seed,
        say: (line) => console.log(`  ${line}`),
        signal: stop.signal,
      });
      for (const [figure, value] of Object.entries(figures)) console.log(`  ${figure}: ${value}`);
      console.log(`  passed in ${((performance.now() - started) / 1_000).toFixed(0)} s`);
    } catch (error) {
      failed++;
      console.error(describeError(error));
      if (stop.signal.aborted) break;
    }
  }
  return failed > 0 ? 1 : 0;
}
