import { OperatorError } from "../errors.ts";
import type { Family } from "../net/mod.ts";
import { ProgramNotFoundError } from "../util/process.ts";
import { nftFamily, nftTableName } from "./nft_ruleset.ts";
import { isAtLeast, parseVersion, type RuleProgram, runRuleProgram } from "./run_rule_program.ts";

/** As upstream demands: comments on tables and chains. */
const MINIMUM = [1, 0, 1];

const NFT: RuleProgram = {
  name: "nft",
  modules: "nf_tables, nft_chain_nat, nft_masq",
};

/** The listing of our table of `family` as JSON text, or `undefined` if there is no such table. */
export async function listNftTable(
  family: Family,
  options: { readonly signal: AbortSignal },
): Promise<string | undefined> {
  const place = { family: nftFamily(family), table: nftTableName(family) };
  return await listNftTableOf(place, options);
}

/** Options of what runs nft. */
export interface RuleProgramOptions {
  readonly signal: AbortSignal;
}

/** The listing of all chains, without rules, as JSON text; `undefined` without nft. */
export async function listNftBaseChains(options: RuleProgramOptions): Promise<string | undefined> {
  try {
    return await runRuleProgram(NFT, ["-j", "list", "chains"], options);
  } catch (error) {
    if (error instanceof ProgramNotFoundError) return undefined;
    throw error;
  }
}

/** The listing of a table as JSON text, or `undefined` if it is gone. */
export async function listNftTableOf(
  { family, table }: { readonly family: string; readonly table: string },
  options: RuleProgramOptions,
): Promise<string | undefined> {
  return await orGone(() => runRuleProgram(NFT, ["-j", "list", "table", family, table], options));
}

/** The listing of a chain as text, which tells more of it than JSON; `undefined` if it is gone. */
export async function listNftChain(
  { family, table, name }: {
    readonly family: string;
    readonly table: string;
    readonly name: string;
  },
  options: RuleProgramOptions,
): Promise<string | undefined> {
  return await orGone(() => runRuleProgram(NFT, ["list", "chain", family, table, name], options));
}

async function orGone(list: () => Promise<string>): Promise<string | undefined> {
  try {
    return await list();
  } catch (error) {
    if (error instanceof Error && error.message.includes("No such file or directory")) {
      return undefined;
    }
    throw error;
  }
}

/** Runs a script as one transaction. */
export async function applyNftScript(
  script: string,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  await runRuleProgram(NFT, ["-f", "-"], { ...options, stdin: script });
}

/** The version of nft; `undefined` if it is not installed. */
export async function probeNft(
  options: { readonly signal: AbortSignal },
): Promise<string | undefined> {
  let text: string;
  try {
    text = await runRuleProgram(NFT, ["--version"], options);
  } catch (error) {
    if (error instanceof ProgramNotFoundError) return undefined;
    throw error;
  }
  const version = parseVersion(text);
  if (!version || !isAtLeast(version, MINIMUM)) {
    throw new OperatorError(
      `Cannot set traffic rules with nftables: nft ${MINIMUM.join(".")} or later is needed, ` +
        `and this is "${text.trim()}"; install a newer one or set EnableNFTables to false`,
    );
  }
  return version.join(".");
}

/**
 * Whether nft and the kernel know `masquerade fully-random`. Nothing is changed.
 *
 * @throws {OperatorError} If they cannot masquerade at all.
 */
export async function probeNftRandomFully(
  family: Family,
  options: { readonly signal: AbortSignal },
): Promise<boolean> {
  const check = (statement: string) =>
    runRuleProgram(NFT, ["--check", "-f", "-"], {
      ...options,
      stdin: `table ${nftFamily(family)} flannel-probe {
  chain probe {
    type nat hook postrouting priority 100;
    ${statement}
  }
}
`,
    });
  try {
    await check("masquerade fully-random");
    return true;
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof OperatorError) throw error;
  }
  try {
    await check("masquerade");
    return false;
  } catch (cause) {
    options.signal.throwIfAborted();
    if (cause instanceof OperatorError) throw cause;
    throw new OperatorError(
      `Cannot masquerade with nftables for IPv${family}: load the modules ${NFT.modules}, or set ` +
        `EnableNFTables to false`,
      { cause },
    );
  }
}
