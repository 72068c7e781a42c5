/** What an earlier run left in subnet.env. @module */
import { describeError } from "../errors.ts";
import { previousNetworks, previousSubnet } from "./subnet_env.ts";
import { readSubnetFile } from "./subnet_file_table.ts";
import type { LeaseSubnet } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import type { Prefix } from "../net/mod.ts";
import { retryBriefly } from "../status/patience.ts";

/** What is known of an earlier run. */
export interface FormerRun {
  /** Its subnet, to request again. */
  readonly subnet: LeaseSubnet | undefined;
  /** The networks that it served, where its leftovers are ours. */
  readonly networks: readonly Prefix[];
}

/**
 * Reads what subnet.env says of the last run. A host whose lease is gone would draw another subnet if
 * the file were not read, so a brief shortage is waited out.
 */
export async function readFormerRun(
  subnetFile: string,
  { log, signal, read = readSubnetFile }: {
    readonly log: Logger;
    readonly signal: AbortSignal;
    readonly read?: typeof readSubnetFile;
  },
): Promise<FormerRun> {
  try {
    const text = await retryBriefly(() => read(subnetFile), { signal }) ?? "";
    return { subnet: previousSubnet(text), networks: previousNetworks(text) };
  } catch (error) {
    signal.throwIfAborted();
    log.warn(`The subnet of the last run is unknown: ${describeError(error)}`);
    return { subnet: undefined, networks: [] };
  }
}
