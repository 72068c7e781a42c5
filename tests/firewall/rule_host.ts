import { missingTools, skippable } from "../prerequisites.ts";
import { openFirewall, type OpenFirewallOptions } from "../../src/firewall/mod.ts";
import type {
  Firewall,
  FirewallMode,
  IptablesVariant,
  PodPaths,
  RuleSetSpec,
} from "../../src/firewall/mod.ts";
import type { Logger } from "../../src/log.ts";
import { formatChange } from "../../src/reconcile/diff.ts";
import { diff } from "../support/diff.ts";
import { sentenceOf } from "../../src/status/problems.ts";
import type { NetworkNamespace } from "../support/namespace.ts";

const obstacle = Deno.uid() === 0
  ? missingTools(["ip", "nft", "iptables"])
  : "needs root for network namespaces";

/** Declares a test that works on the rules of a network namespace. */
export function ruleTest(
  name: string,
  fn: (test: Deno.TestContext) => void | Promise<void>,
): void {
  Deno.test({ name: skippable(name, obstacle), ignore: obstacle !== undefined, fn });
}

/** Which rules, and for iptables over which of the kernel's interfaces. */
export interface Engine {
  readonly title: string;
  readonly mode: FirewallMode;
  /** What the command `iptables` is. */
  readonly variant: IptablesVariant;
}

export const ENGINES: readonly Engine[] = [
  { title: "iptables over nf_tables", mode: "iptables", variant: "nft" },
  { title: "iptables (legacy)", mode: "iptables", variant: "legacy" },
  { title: "nftables", mode: "nftables", variant: "nft" },
];

/** Options of {@linkcode RuleHost.open}. */
export type RuleHostOptions = Omit<OpenFirewallOptions, "log" | "signal" | "mode">;

/** What a round did. */
export interface RoundResult {
  /** `add rule set …`, one line each. */
  readonly changes: readonly string[];
  readonly failures: readonly string[];
  /** The programs run, with their arguments. */
  readonly runs: readonly string[];
}

/**
 * A host whose firewall programs act in a network namespace, though the code under test runs
 * outside: each is a small script, alone on the PATH, that writes down its call.
 */
export class RuleHost {
  readonly namespace: NetworkNamespace;
  /** What the firewall logged: `warn …`. */
  readonly lines: string[] = [];
  readonly #directory: string;
  readonly #log: string;

  /** @param directory A private directory, which has to exist; files in it are replaced. */
  constructor(namespace: NetworkNamespace, directory: string) {
    this.namespace = namespace;
    this.#directory = `${directory}/bin`;
    this.#log = `${directory}/runs`;
  }

  /** Puts the programs in place: those of `engine`, without the `missing` ones. */
  async install(engine: Pick<Engine, "variant">, missing: readonly string[] = []): Promise<void> {
    await Deno.remove(this.#directory, { recursive: true }).catch(() => {/* first time */});
    await Deno.mkdir(this.#directory);
    await Deno.writeTextFile(this.#log, "");
    const programs: [name: string, real: string][] = [["nft", "nft"]];
    for (const family of ["iptables", "ip6tables"]) {
      for (const suffix of ["", "-save", "-restore"]) {
        programs.push([family + suffix, `${family}-${engine.variant}${suffix}`]);
        for (const variant of ["legacy", "nft"]) {
          const name = `${family}-${variant}${suffix}`;
          programs.push([name, name]);
        }
      }
    }
    for (const [name, real] of programs) {
      if (missing.includes(name)) continue;
      const path = `${this.#directory}/${name}`;
      await Deno.writeTextFile(
        path,
        `#!/bin/sh
echo "${name} $*" >> ${this.#log}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec ip netns exec ${this.namespace.name} ${real} "$@"
`,
      );
      await Deno.chmod(path, 0o755);
    }
  }

  open(
    engine: Pick<Engine, "mode">,
    options: RuleHostOptions & { readonly signal: AbortSignal },
  ): Promise<Firewall> {
    const { mode } = engine;
    return this.#onOwnPath(() => openFirewall({ ...options, mode, log: this.#logger() }));
  }

  /** One round as the reconciler does it. */
  round(
    firewall: Firewall,
    desired: readonly RuleSetSpec[] | (() => readonly RuleSetSpec[]),
    { signal }: { signal: AbortSignal },
  ): Promise<RoundResult> {
    return this.#onOwnPath(async () => {
      await Deno.writeTextFile(this.#log, "");
      const { kind } = firewall.table;
      const actual = await firewall.table.list({ signal });
      const wanted = typeof desired === "function" ? desired() : desired;
      const difference = diff(kind, wanted, actual);
      const failed = [];
      for (const changes of [difference.writes, difference.removals]) {
        if (changes.length > 0) failed.push(...await firewall.table.apply(changes, { signal }));
      }
      const changes = [...difference.writes, ...difference.removals];
      return {
        changes: changes.map((change) => formatChange(kind, change).replace(/ \(.*/, "")),
        failures: failed.map(({ error }) => error.message),
        runs: (await Deno.readTextFile(this.#log)).split("\n").filter((line) => line !== "").sort(),
      };
    });
  }

  /** What the firewall finds of others that refuses packets of `paths`. */
  async survey(
    firewall: Firewall,
    paths: readonly PodPaths[],
    { signal }: { signal: AbortSignal },
  ): Promise<readonly string[]> {
    const options = { signal, hasLegacyTables: () => true };
    return (await this.#onOwnPath(() => firewall.survey(paths, options))).map(sentenceOf);
  }

  async #onOwnPath<Result>(action: () => Promise<Result>): Promise<Result> {
    const path = Deno.env.get("PATH")!;
    Deno.env.set("PATH", this.#directory);
    try {
      return await action();
    } finally {
      Deno.env.set("PATH", path);
    }
  }

  #logger(): Logger {
    const write = (level: string) => (message: string) =>
      void this.lines.push(`${level} ${message}`);
    const log: Logger = {
      trace: write("trace"),
      debug: write("debug"),
      info: write("info"),
      warn: write("warn"),
      error: write("error"),
      child: () => log,
    };
    return log;
  }
}
