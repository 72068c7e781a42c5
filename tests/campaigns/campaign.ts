/**
 * What a campaign is: a long, randomised trial against an oracle, run by hand in its long form and
 * by a test in its short one.
 *
 * @module
 */

/** What a campaign is told. */
export interface CampaignContext {
  /** Whether to run the long form (minutes to hours) or the short one (seconds). */
  readonly long: boolean;
  /** Seeds whatever is drawn at random, so that a run can be repeated. */
  readonly seed: number;
  /** Called with one line at a time: progress and figures. */
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

/** What a campaign's module exports as `campaign`. */
export interface Campaign {
  /** One line for the list of campaigns. */
  readonly summary: string;
  /**
   * Runs the campaign and cleans up after itself, on failure too.
   *
   * @returns The figures to report, by name.
   * @throws {CampaignFailure} If the oracle found a violation.
   */
  run(context: CampaignContext): Promise<Record<string, number | string>>;
}

/** The oracle found what must not happen. */
export class CampaignFailure extends Error {
  override name = "CampaignFailure";
  readonly violations: readonly string[];

  constructor(campaign: string, violations: readonly string[]) {
    const shown = violations.slice(0, 20).map((each) => `\n  ${each}`).join("");
    const more = violations.length > 20 ? `\n  and ${violations.length - 20} more` : "";
    super(`Campaign ${campaign} failed with ${violations.length} violations:${shown}${more}`);
    this.violations = violations;
  }
}

/** Runs the short form of `campaign` in a test. */
export async function runShort(
  campaign: Campaign,
  options: { readonly signal: AbortSignal; readonly seed?: number },
): Promise<void> {
  await campaign.run({
    long: false,
    seed: options.seed ?? 1,
    say: () => {},
    signal: options.signal,
  });
}

/** Numbers in [0, 1) that follow from `seed` alone (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
