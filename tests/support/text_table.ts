/** One cell: text, and how a terminal shows it. */
export interface Cell {
  readonly text: string;
  readonly style?: "good" | "bad" | "dim";
}

/** Options of {@linkcode formatTable}. */
export interface TableOptions {
  /** Whether styles become escape sequences. */
  readonly colour: boolean;
}

const CODES = { good: "32", bad: "31;1", dim: "2" } as const;

/** Rows as aligned lines under a heading with a rule; columns are two blanks apart. */
export function formatTable(
  heading: readonly string[],
  rows: readonly (readonly (string | Cell)[])[],
  options: TableOptions,
): string {
  const cells = rows.map((row) =>
    row.map((cell) => typeof cell === "string" ? { text: cell } : cell)
  );
  const widths = heading.map((title, column) =>
    Math.max(title.length, ...cells.map((row) => row[column]?.text.length ?? 0))
  );
  const line = (row: readonly Cell[]) =>
    row.map((cell, column) =>
      "  " + style(cell, options) + " ".repeat(widths[column]! - cell.text.length)
    ).join("").trimEnd();
  return [
    line(heading.map((text) => ({ text }))),
    line(widths.map((width) => ({ text: "─".repeat(width), style: "dim" }))),
    ...cells.map(line),
  ].join("\n");
}

/** A cell's text, in its style where that can be shown. */
export function style(cell: Cell, options: TableOptions): string {
  if (!options.colour || cell.style === undefined) return cell.text;
  return `\x1b[${CODES[cell.style]}m${cell.text}\x1b[0m`;
}
