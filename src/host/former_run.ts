import { describeError } from "../errors.ts";
import { previousNetworks, previousSubnet } from "./subnet_env.ts";
import { readSubnetFile } from "./subnet_file_table.ts";
import type { LeaseSubnet } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import type { Prefix } from "../net/mod.ts";

/** What is known of an earlier run. */
export interface FormerRun {
  /** Its subnet, to request again. */
  readonly subnet: LeaseSubnet | undefined;
  /** The networks that it served, where its leftovers are ours. */
  readonly networks: readonly Prefix[];
}

/** Reads the last run's values from subnet.env. */
export async function readFormerRun(subnetFile: string, log: Logger): Promise<FormerRun> {
  try {
    const text = await readSubnetFile(subnetFile) ?? "";
    return { subnet: previousSubnet(text), networks: previousNetworks(text) };
  } catch (error) {
    log.warn(`The subnet of the last run is unknown: ${describeError(error)}`);
    return { subnet: undefined, networks: [] };
  }
}
