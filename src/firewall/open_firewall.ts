/** Finds the programs for traffic rules and opens the Table over them. @module */
import { describeError, OperatorError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Family, Prefix } from "../net/mod.ts";
import type { Table } from "../reconcile/table.ts";
import type { Finding, FirewallStatus } from "../status/model.ts";
import { ProblemLog, sentenceOf } from "../status/problems.ts";
import {
  IptablesCommand,
  iptablesName,
  type IptablesVersion,
  probeIptables,
} from "./iptables_command.ts";
import type { ListInterfaces } from "./docker.ts";
import { FirewallTable, type RulePlace } from "./firewall_table.ts";
import { type ForeignTablesOptions, type PodPaths, surveyForeignTables } from "./foreign_tables.ts";
import { IptablesTable } from "./iptables_table.ts";
import { probeNft, probeNftRandomFully } from "./nft_command.ts";
import { NftTable } from "./nft_table.ts";
import type { FirewallMode, Purpose, RuleSetSpec } from "./plan.ts";

export interface OpenFirewallOptions {
  /** Where rules are put; what is found in the other place is removed. */
  readonly mode: FirewallMode;
  /** The networks of the config, one per family. */
  readonly networks: readonly Prefix[];
  /** `--ip-masq` */
  readonly masquerade: boolean;
  /** `--iptables-forward-rules` */
  readonly forward: boolean;
  /** `--ip-masq-fully-random-disable` */
  readonly randomFullyDisabled: boolean;
  /** The links of this host. @default {Deno.networkInterfaces} */
  readonly listInterfaces?: ListInterfaces;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** The host's traffic rules, as far as they are ours. */
export interface Firewall {
  /** Takes all that `planRuleSets()` plans for the same mode. */
  readonly table: Table<RuleSetSpec>;
  /** Whether masquerading can, and is allowed to, choose source ports at random. */
  readonly randomFully: boolean;
  /** Where Docker refuses what other hosts send to containers; known from the first listing on. */
  readonly docker: readonly Family[];
  /**
   * Looks for foreign chains that refuse packets of `paths`, and logs them. To be called once
   * the own rules are in place.
   *
   * @returns The findings that cut off all pods.
   */
  survey(
    paths: readonly PodPaths[],
    options: ForeignTablesOptions,
  ): Promise<readonly Finding[]>;
  describe(): FirewallStatus;
}

/**
 * Finds the programs for the rules and returns the Table over them. Nothing is changed yet.
 *
 * @throws {OperatorError} If a program or kernel support that the mode needs is missing.
 */
export async function openFirewall(options: OpenFirewallOptions): Promise<Firewall> {
  const { mode, networks, masquerade, forward, log, signal } = options;
  const families = networks.map(({ family }) => family);
  const purposes: Purpose[] = [
    ...(masquerade ? ["masquerade" as const] : []),
    ...(forward ? ["forward", "docker-forward", "docker-raw"] as const : []),
  ];
  const foreign = new ProblemLog(log, {
    over: (problem) => [`No longer true: ${sentenceOf(problem)}`],
  });
  const ownFamilies = purposes.length > 0 ? families : [];
  const own = new Map<Family, RulePlace>();
  const leftovers: RulePlace[] = [];
  const add = (family: Family, place: RulePlace, isOwn: boolean) =>
    void (isOwn ? own.set(family, place) : leftovers.push(place));
  const versions = new Map<Family, IptablesVersion>();
  for (const family of [4, 6] as const) {
    const isOwn = mode === "iptables" && ownFamilies.includes(family);
    const version = await findIptables(family, isOwn, { log, signal });
    if (!version) continue;
    versions.set(family, version);
    const name = iptablesName(family);
    const shared = {
      networks: networks.filter((network) => network.family === family),
      forwards: forward,
      listInterfaces: options.listInterfaces ?? Deno.networkInterfaces,
      foreign,
      log,
    };
    const command = new IptablesCommand(family, name, { wait: version.modern });
    const wanted = isOwn ? purposes : [];
    add(family, new IptablesTable({ ...shared, command, wanted }), isOwn);
    // The tables that this iptables does not manage; only releases with `--wait` come in variants.
    const variant = version.variant === "nft" ? "legacy" : "nft";
    const other = new IptablesCommand(family, `${name}-${variant}`, { wait: true });
    add(family, new IptablesTable({ ...shared, command: other, wanted: [], variant }), false);
  }
  const needsNft = mode === "nftables" && ownFamilies.length > 0;
  const nftVersion = needsNft ? await probeNft({ signal }) : undefined;
  if (needsNft && nftVersion === undefined) throw notInstalled("nft", "nftables", mode);
  for (const family of [4, 6] as const) {
    const isOwn = mode === "nftables" && ownFamilies.includes(family);
    add(family, new NftTable({ family, wanted: isOwn, log }), isOwn);
  }

  let canRandomize = true;
  for (const family of masquerade ? families : []) {
    canRandomize &&= mode === "nftables"
      ? await probeNftRandomFully(family, { signal })
      : versions.get(family)?.modern ?? false;
  }
  if (!canRandomize && !options.randomFullyDisabled) {
    log.warn(`Masquerading keeps source ports: ${mode} is too old to choose them at random`);
  }

  const version = versions.get(families[0] ?? 4);
  const program = ownFamilies.length === 0
    ? "none"
    : mode === "nftables"
    ? `nftables ${nftVersion}`
    : `iptables ${version?.version} (${version?.variant})`;
  log.info(program === "none" ? "No traffic rules are wanted" : `Traffic rules go to ${program}`);
  const table = new FirewallTable(own, leftovers, log);
  const closedByDocker = () =>
    [...own].flatMap(([family, place]) => place.closedByDocker ? [family] : []);
  return {
    table,
    randomFully: canRandomize && !options.randomFullyDisabled,
    get docker() {
      return closedByDocker();
    },
    async survey(paths, options) {
      const before = closedByDocker();
      let found = await surveyForeignTables(paths, options);
      if (found.length > 0 && before.length < own.size) {
        // Docker may have come since the last listing: what it drops, the next round accepts.
        await table.list(options);
        if (closedByDocker().length > before.length) found = [];
      }
      foreign.set(found, "foreign tables");
      return found.filter(({ code }) => code !== "some-pods-refused");
    },
    describe: () => ({ program, problems: foreign.problems }),
  };
}

/** The family's iptables; a missing or broken one is an error only if `required`. */
async function findIptables(
  family: Family,
  required: boolean,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<IptablesVersion | undefined> {
  const name = iptablesName(family);
  let version: IptablesVersion | undefined;
  try {
    version = await probeIptables(name, { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (required) throw error;
    log.warn(`Leftover rules in ${name}, if any, stay: ${describeError(error)}`);
  }
  if (!version && required) throw notInstalled(name, "iptables", "iptables");
  return version;
}

function notInstalled(program: string, debianPackage: string, mode: FirewallMode): OperatorError {
  return new OperatorError(
    `Cannot set traffic rules: ${program} is not installed; install the package ${debianPackage}, ` +
      `or set EnableNFTables to ${mode === "iptables"} in the network config, or run with ` +
      `--ip-masq=false and --iptables-forward-rules=false`,
  );
}
