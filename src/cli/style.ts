/**
 * Colours of what is printed for people: on a terminal only, and not where NO_COLOR or TERM=dumb
 * asks for none.
 *
 * @module
 */

/** Marks parts of a text. */
export interface Style {
  heading(text: string): string;
  error(text: string): string;
  warning(text: string): string;
}

const paint = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`;
const plain = (text: string) => text;

const PLAIN: Style = { heading: plain, error: plain, warning: plain };
const COLOURED: Style = { heading: paint(1), error: paint(31), warning: paint(33) };

/** The style for what is written to `stream` (https://no-color.org). */
export function styleOf(
  stream: { isTerminal(): boolean },
  { NO_COLOR = "", TERM = "dumb" }: Readonly<Record<string, string | undefined>>,
): Style {
  return stream.isTerminal() && NO_COLOR === "" && TERM !== "dumb" ? COLOURED : PLAIN;
}

/** The text of `--help` with its titles, commands and flags marked. */
export function paintHelp(text: string, { heading }: Style): string {
  return text.replaceAll(/^\S.*:$|(?<=^ {2})(?:--?)?[a-z][\w-]*/gm, heading);
}

/** A line of the log with its level marked. */
export function paintLog(line: string, { error, warning }: Style): string {
  return line.replace(
    /(?<=^\S+ )(?:WARN|ERROR)(?= )/,
    (level) => (level === "WARN" ? warning : error)(level),
  );
}
