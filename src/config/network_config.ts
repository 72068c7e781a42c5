import type { Address, Prefix } from "../net/mod.ts";

/** One family's share of the network config. */
export interface FamilyConfig {
  /** The whole network. */
  readonly network: Prefix;
  /** Length of each host's subnet. */
  readonly subnetLength: number;
  /** First and last subnet base that may be handed out. */
  readonly subnetMin: Address;
  readonly subnetMax: Address;
}

/** The network config; at least one family is present. */
export interface NetworkConfig {
  readonly ipv4?: FamilyConfig;
  readonly ipv6?: FamilyConfig;
  readonly enableNFTables: boolean;
  readonly backend: {
    /** Lower case. */
    readonly type: string;
    /** The raw `Backend` object, with `Type`. Holds secrets: never log it. */
    readonly options: Readonly<Record<string, unknown>>;
  };
}
