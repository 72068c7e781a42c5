/** What tells two reports of one trouble apart without meaning anything to the reader. */
const VOLATILE = new RegExp(
  [
    // a UUID, such as the id of a request to a cloud
    /\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/,
    // a request's id of any other form
    /(?<=\brequest )[\w-]+/,
    // a time of day, with or without its date
    /\b(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?\b/,
    // a duration
    /\b\d+(?:\.\d+)? ?(?:ms|s|min|h)\b/,
  ].map(({ source }) => source).join("|"),
  "gi",
);

/**
 * `text` without request ids, times and durations: two texts that are alike then speak of the
 * same trouble, and the second one is no news.
 */
export function steadyText(text: string): string {
  return text.replaceAll(VOLATILE, "…");
}
