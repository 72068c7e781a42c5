/** Failures of a CNI plug-in, as the specification has them printed. @module */

/** Codes of the specification, of libcni where it adds one, and of our own from 100. */
export const CODES = {
  incompatibleVersion: 1,
  unknownContainer: 3,
  badEnvironment: 4,
  io: 5,
  decode: 6,
  badConfig: 7,
  tryAgainLater: 11,
  notAvailable: 50,
  subnetChanged: 100,
  internal: 999,
} as const;

/** What a plug-in prints in place of a result. */
export class CniFailure extends Error {
  override name = "CniFailure";
  readonly code: number;
  readonly details: string;

  constructor(code: number, message: string, details = "") {
    super(message);
    this.code = code;
    this.details = details;
  }

  /** The object to be printed, for a config of version `cniVersion`. */
  render(cniVersion: string): string {
    const { code, message: msg, details } = this;
    return JSON.stringify({ cniVersion, code, msg, ...(details && { details }) }, null, 4) + "\n";
  }
}
