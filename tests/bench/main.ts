// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `deno task bench [name …]`: measures the daemon, each figure beside its goal or beside a
 * reference taken in the same run. Needs root. Absolute figures vary between machines and runs;
 * no test depends on them.
 *
 * @module
 */
import { ensurePrerequisites, LAB_NEEDS } from "../prerequisites.ts";
import { Report } from "./report.ts";

/** Each benchmark by its name; loaded when it is run. */
const BENCHMARKS: Record<string, () => Promise<Benchmark>> = {
  startup: () => import("./startup.ts"),
  leases: () => import("./leases.ts"),
  cluster: () => import("./cluster.ts"),
  udp: () => import("./udp.ts"),
  kernel: () => import("./kernel.ts"),
  change: () => import("./change.ts"),
  slices: () => import("./slices.ts"),
  cni: () => import("./cni.ts"),
  throughput: () => import("./kernel_throughput.ts"),
};

/** What a benchmark's module exports. */
interface Benchmark {
  run(report: Report, options: { signal: AbortSignal }): Promise<void>;
}

if (import.meta.main) Deno.exit(await main(Deno.args));

async function main(names: readonly string[]): Promise<number> {
  const unknown = names.filter((name) => !Object.hasOwn(BENCHMARKS, name));
  if (unknown.length > 0) {
    console.error(
      `Cannot run ${unknown.join(", ")}: the benchmarks are ${Object.keys(BENCHMARKS).join(", ")}`,
    );
    return 2;
  }
  const stop = new AbortController();
  Deno.addSignalListener("SIGINT", () => stop.abort(new Error("interrupted")));
  await ensurePrerequisites(LAB_NEEDS, { signal: stop.signal, say: console.log });
  const report = new Report();
  for (const name of names.length > 0 ? names : Object.keys(BENCHMARKS)) {
    const benchmark = await BENCHMARKS[name]!();
    await benchmark.run(report, { signal: stop.signal });
  }
  report.finish();
  return 0;
}
