// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * Figures of a benchmark: medians beside their goals.
 *
 * @module
 */

/** The middle of `values`, the mean of the middle two for an even number. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("Cannot take the median of nothing");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** A goal: the figure is to be at most, or at least, this. */
export type Goal = { readonly atMost: number } | { readonly atLeast: number };

/** Collects figures and prints each as it comes. */
export class Report {
  readonly #missed: string[] = [];

  section(title: string): void {
    console.log(`\n${title}`);
  }

  note(text: string): void {
    console.log(`  ${text}`);
  }

  /** Prints the median of `values`, with their range and whether `goal` is met. */
  figure(name: string, values: readonly number[], unit: string, goal?: Goal): void {
    const value = median(values);
    const range = values.length > 1
      ? ` (${round(Math.min(...values))}–${round(Math.max(...values))}, n=${values.length})`
      : "";
    let verdict = "";
    if (goal) {
      const met = "atMost" in goal ? value <= goal.atMost : value >= goal.atLeast;
      const bound = "atMost" in goal ? `≤ ${goal.atMost}` : `≥ ${goal.atLeast}`;
      verdict = `   goal ${bound}: ${met ? "met" : "MISSED"}`;
      if (!met) this.#missed.push(name);
    }
    console.log(`  ${name.padEnd(58)} ${round(value)} ${unit}${range}${verdict}`);
  }

  /** Prints the goals that were missed. */
  finish(): void {
    console.log(
      this.#missed.length === 0
        ? "\nEvery goal was met"
        : `\nGoals missed: ${this.#missed.join("; ")}`,
    );
  }
}

function round(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
