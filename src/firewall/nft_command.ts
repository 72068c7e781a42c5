/** Runs nft. @module */
import { OperatorError } from "../errors.ts";
import type { Family } from "../net/mod.ts";
import { ProgramNotFoundError } from "../util/process.ts";
import { readListing } from "./nft_listing.ts";
import { nftFamily } from "./nft_ruleset.ts";
import {
  ifInstalled,
  isAtLeast,
  probeVersion,
  type RuleProgram,
  runRuleProgram,
} from "./run_rule_program.ts";

/** As upstream demands: comments on tables and chains. */
const MINIMUM = [1, 0, 1];

const NFT: RuleProgram = {
  name: "nft",
  modules: "nf_tables, nft_chain_nat, nft_masq",
};

export interface RuleProgramOptions {
  readonly signal: AbortSignal;
}

/** A table, by nft's word for its family. */
interface TableName {
  readonly family: string;
  readonly table: string;
}

/** The listing of all chains, without rules, as JSON text; `undefined` without nft. */
export function listNftBaseChains(options: RuleProgramOptions): Promise<string | undefined> {
  return ifInstalled(runRuleProgram(NFT, ["-j", "list", "chains"], options));
}

/** The listing of a table as JSON text, or `undefined` if it is not there. */
export function listNftTable(
  { family, table }: TableName,
  options: RuleProgramOptions,
): Promise<string | undefined> {
  return ifThere(
    ["-j", "list", "table", family, table],
    { kind: "table", family, name: table },
    options,
  );
}

/** The listing of a chain as text, which has more than the JSON; `undefined` if it is gone. */
export function listNftChain(
  { family, table, name }: TableName & { readonly name: string },
  options: RuleProgramOptions,
): Promise<string | undefined> {
  const chain = { kind: "chain", family, table, name };
  return ifThere(["list", "chain", family, table, name], chain, options);
}

/** What nft prints; `undefined` if it fails and its listing lacks the object. */
async function ifThere(
  args: readonly string[],
  { kind, ...wanted }: { readonly kind: string } & Readonly<Record<string, string>>,
  options: RuleProgramOptions,
): Promise<string | undefined> {
  try {
    return await runRuleProgram(NFT, args, options);
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof OperatorError || error instanceof ProgramNotFoundError) throw error;
    const present = readListing(await runRuleProgram(NFT, ["-j", "list", `${kind}s`], options));
    const isIt = (value: unknown) =>
      Object.entries(wanted).every(([key, text]) =>
        (value as Record<string, unknown>)[key] === text
      );
    if (present.some(([found, value]) => found === kind && isIt(value))) throw error;
    return undefined;
  }
}

/** Runs a script as one transaction. */
export async function applyNftScript(
  script: string,
  options: RuleProgramOptions,
): Promise<void> {
  await runRuleProgram(NFT, ["-f", "-"], { ...options, stdin: script });
}

/** The version of nft; `undefined` if it is not installed. */
export async function probeNft(options: RuleProgramOptions): Promise<string | undefined> {
  const found = await probeVersion(NFT, options);
  if (found && !(found.version && isAtLeast(found.version, MINIMUM))) {
    throw new OperatorError(
      `Cannot set traffic rules with nftables: nft ${MINIMUM.join(".")} or later is needed, ` +
        `and this is "${found.text}"; install a newer one or set EnableNFTables to false`,
    );
  }
  return found?.version?.join(".");
}

/**
 * Whether nft and the kernel know `masquerade fully-random`. Nothing is changed.
 *
 * @throws {OperatorError} If they cannot masquerade at all.
 */
export async function probeNftRandomFully(
  family: Family,
  options: RuleProgramOptions,
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
