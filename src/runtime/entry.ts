/**
 * Ties a pure backend to its runtime by the types of its config and facts, which nobody else has to
 * know.
 *
 * @module
 */
import { type Backend, bindPlan, podMtuBytes } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import { Cell } from "../util/cell.ts";
import type {
  BackendEntry,
  BackendRuntime,
  ConfiguredBackend,
  OpenBackend,
  ReleaseContext,
  Remnants,
  RuntimeContext,
  SelfTest,
  Service,
} from "./runtime.ts";

/** What of a backend is not pure; its functions load their files when they are called. */
export interface BackendParts<Config, Facts> {
  /** @see {@linkcode ConfiguredBackend.open} */
  open(context: RuntimeContext, config: Config): Promise<BackendRuntime<Facts>>;
  /** @see {@linkcode ConfiguredBackend.services} */
  services?(options: Options): readonly Service[];
  /** @see {@linkcode ConfiguredBackend.remnants} */
  readonly remnants?: Omit<Remnants, "remove"> & {
    remove(context: ReleaseContext, config: Config): Promise<number>;
  };
  readonly selfTest?: SelfTest;
}

/** The table's entry of `backend`. */
export function backendEntry<Config, Facts>(
  backend: Backend<Config, Facts>,
  parts: BackendParts<Config, Facts>,
): BackendEntry {
  const { type, families } = backend;
  return {
    type,
    families,
    configure(options) {
      const { config, warnings } = backend.parseConfig(options);
      return { backend: bindConfig(backend, config, parts), warnings };
    },
    ...(parts.selfTest ? { selfTest: parts.selfTest } : {}),
  };
}

/** The parts of a backend that needs nothing but its plan. */
export const PLAN_ONLY: BackendParts<unknown, undefined> = {
  open: () =>
    Promise.resolve({
      facts: new Cell(undefined),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }),
};

function bindConfig<Config, Facts>(
  backend: Backend<Config, Facts>,
  config: Config,
  { open, services, remnants }: BackendParts<Config, Facts>,
): ConfiguredBackend {
  const { type, families, devices = [], exposesPods = false } = backend;
  return {
    type,
    families,
    config,
    devices,
    exposesPods,
    changesKernel: backend.changesKernel?.(config) ?? true,
    services: (options) => services?.(options) ?? [],
    checkNetwork: (network) => backend.checkNetwork?.(config, network) ?? [],
    podMtuBytes: (network, host) => podMtuBytes(backend, config, network, host),
    open: async (context) => bindFacts(backend, config, context, await open(context, config)),
    ...(remnants
      ? { remnants: { ...remnants, remove: (context) => remnants.remove(context, config) } }
      : {}),
  };
}

function bindFacts<Config, Facts>(
  backend: Backend<Config, Facts>,
  config: Config,
  { network }: RuntimeContext,
  runtime: BackendRuntime<Facts>,
): OpenBackend {
  return Object.assign(
    runtime,
    {
      announce: (host) => backend.announce(config, host, runtime.facts.value),
      bindPlan: (host, own) =>
        bindPlan(backend, { config, network, host, facts: runtime.facts.value, own }),
    } satisfies Pick<OpenBackend, "announce" | "bindPlan">,
  );
}
