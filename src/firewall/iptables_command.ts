/** Runs `iptables`, `iptables-save` and `iptables-restore`. @module */
import { OperatorError } from "../errors.ts";
import type { Family } from "../net/mod.ts";
import { runProgram } from "../util/process.ts";
import {
  type Dump,
  type DumpedChain,
  findUnprintedTables,
  parseChainListing,
  parseDump,
} from "./iptables_dump.ts";
import { PLACES, renderJump } from "./iptables_rule.ts";
import type { IptablesVariant } from "./plan.ts";
import {
  ifInstalled,
  isAtLeast,
  probeVersion,
  type RuleProgram,
  ruleProgramEnvironment,
  runRuleProgram,
} from "./run_rule_program.ts";

/** First release whose MASQUERADE has `--random-fully` and whose restore has `--wait`. */
const MODERN = [1, 6, 2];

const MODULES = "ip_tables, iptable_nat, iptable_filter, xt_MASQUERADE, xt_comment and xt_mark " +
  "(ip6_tables, ip6table_nat and ip6table_filter for IPv6; nf_tables and nft_compat for iptables-nft)";

/** What a program says about itself. */
export interface IptablesVersion {
  readonly version: string;
  readonly variant: IptablesVariant;
  /** Whether it knows `--random-fully` and `--wait`. */
  readonly modern: boolean;
}

/** One pair of `iptables-save` and `iptables-restore`. Opening it runs nothing. */
export class IptablesCommand {
  readonly family: Family;
  /** `iptables`, `ip6tables`, `iptables-legacy`, … */
  readonly name: string;
  readonly #wait: boolean;

  constructor(family: Family, name: string, options: { readonly wait: boolean }) {
    this.family = family;
    this.name = name;
    this.#wait = options.wait;
  }

  /**
   * The content of `tables`. A single table is read by name if that `mayCreate` it, as the legacy
   * variant does. Otherwise everything is read, also in one run.
   */
  async save(
    tables: readonly string[],
    options: { readonly signal: AbortSignal; readonly mayCreate: boolean },
  ): Promise<Dump> {
    const { signal } = options;
    const args = tables.length === 1 && options.mayCreate ? ["-t", tables[0]!] : [];
    const text = await runRuleProgram(this.#program("-save"), args, { signal });
    const dump = new Map(parseDump(text));
    for (const table of findUnprintedTables(text)) {
      if (tables.includes(table)) dump.set(table, await this.#readPart(table, { signal }));
    }
    return dump;
  }

  /**
   * Our chains and those that lead to them, of a table that `iptables-save` cannot print: nft has
   * put something into it (`Table … is incompatible, use 'nft' tool`). Such a table takes our rules
   * nevertheless, and each chain of iptables' own in it can be listed.
   */
  async #readPart(
    table: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Map<string, DumpedChain>> {
    const wholeEnv = ruleProgramEnvironment();
    const run = (...args: string[]) =>
      runProgram(this.name, ["-t", table, ...args], { signal, wholeEnv });
    const chains = new Map<string, DumpedChain>();
    for (const place of Object.values(PLACES).filter((each) => each.table === table)) {
      const { chain, hook, comment } = place;
      for (const name of [chain, hook]) {
        const { code, stdout } = await run("-S", name);
        if (code === 0) chains.set(name, parseChainListing(stdout));
      }
      if (chains.has(hook)) continue;
      const jump = ["-m", "comment", "--comment", comment, "-j", chain];
      const { code } = await run("-C", hook, ...jump);
      if (code === 0) chains.set(hook, { policy: "-", rules: [renderJump(place)] });
    }
    return chains;
  }

  /** Runs a transaction; what it does not mention stays. */
  async restore(transaction: string, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const args = ["--noflush", ...(this.#wait ? ["--wait=5"] : [])];
    await runRuleProgram(this.#program("-restore"), args, { signal, stdin: transaction });
  }

  #program(suffix: string): RuleProgram {
    return { name: this.name + suffix, modules: MODULES };
  }
}

/**
 * What `iptables-save` prints of the tables over nf_tables, and of those of the kernel's ip_tables if
 * there are any, since listing them would create them.
 */
export async function saveForeignIptables(
  family: Family,
  options: { readonly signal: AbortSignal; readonly hasLegacy: boolean },
): Promise<string[]> {
  const name = iptablesName(family);
  const texts: string[] = [];
  for (const variant of options.hasLegacy ? ["nft", "legacy"] : ["nft"]) {
    const program = { name: `${name}-${variant}-save`, modules: MODULES };
    texts.push(await ifInstalled(runRuleProgram(program, [], options)) ?? "");
  }
  return texts;
}

/** `iptables` or `ip6tables` */
export function iptablesName(family: Family): string {
  return family === 4 ? "iptables" : "ip6tables";
}

/**
 * Version and variant of a program such as `iptables`; `undefined` if it is not installed.
 * Releases before 1.8 name no variant: they are legacy.
 */
export async function probeIptables(
  name: string,
  options: { readonly signal: AbortSignal },
): Promise<IptablesVersion | undefined> {
  const found = await probeVersion({ name, modules: MODULES }, options);
  if (!found) return undefined;
  const { text, version } = found;
  if (!version) throw new OperatorError(`Cannot use ${name}: it names no version: "${text}"`);
  return {
    version: version.join("."),
    variant: text.includes("(nf_tables)") ? "nft" : "legacy",
    modern: isAtLeast(version, MODERN),
  };
}
