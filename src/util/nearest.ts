/**
 * The candidate most like `text`, for "did you mean" hints; `undefined` if none is near. Case does
 * not count. Near means: no more edits (insert, delete, replace, swap of neighbours) than a third
 * of the longer text's characters, but at least one; or `text` starts a single candidate.
 */
export function nearest(text: string, candidates: Iterable<string>): string | undefined {
  const wanted = text.toLowerCase();
  let best: { candidate: string; distance: number } | undefined;
  const completions: string[] = [];
  for (const candidate of candidates) {
    const name = candidate.toLowerCase();
    if (wanted.length >= 3 && name.startsWith(wanted)) completions.push(candidate);
    const length = Math.max(wanted.length, name.length);
    const distance = editDistance(wanted, name);
    if (distance > Math.max(1, Math.floor(length / 3)) || distance >= length) continue;
    if (best === undefined || distance < best.distance) best = { candidate, distance };
  }
  return best?.candidate ?? (completions.length === 1 ? completions[0] : undefined);
}

/** `one of: v3, v2`, with the choice that `text` is likely meant to be; short ones tell nothing. */
export function oneOf(choices: readonly string[], text: string): string {
  const hint = text.length > 3 ? nearest(text, choices) : undefined;
  return `one of: ${choices.join(", ")}` + (hint === undefined ? "" : `; did you mean ${hint}?`);
}

/** Optimal string alignment distance: edits that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  // Hostile input must not cause quadratic work; such lengths are never near anything.
  if (a.length > 64 || b.length > 64) return Infinity;
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = previous[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      let edits = Math.min(previous[column]! + 1, current[column - 1]! + 1, replaced);
      if (
        row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]
      ) {
        edits = Math.min(edits, beforePrevious[column - 2]! + 1);
      }
      current.push(edits);
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[b.length]!;
}
