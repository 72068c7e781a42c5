/**
 * README.md and docs/ taken apart, for tests that hold them to the program.
 *
 * @module
 */
import { join } from "node:path";

/** The repository's top folder. */
export const root = join(import.meta.dirname!, "../..");

/** A document, taken apart. */
export interface Document {
  /** Its path in the repository. */
  readonly name: string;
  readonly text: string;
  /** The text without its fenced blocks. */
  readonly prose: string;
  /** Levels of its headings, in order. */
  readonly headings: readonly number[];
  /** Fenced blocks: the word behind the fence, and the lines. */
  readonly blocks: readonly { readonly language: string; readonly text: string }[];
  /** Tables: rows of trimmed cells, the heading first, the line of dashes left out. */
  readonly tables: readonly (readonly (readonly string[])[])[];
}

export function readDocument(name: string): Document {
  const text = Deno.readTextFileSync(join(root, name));
  const blocks: { language: string; text: string }[] = [];
  const prose = text.replaceAll(/^```(\w*)\n([^]*?)^```$/gm, (_, language, block) => {
    blocks.push({ language, text: block });
    return "";
  });
  const tables: string[][][] = [];
  let inTable = false;
  for (const line of prose.split("\n")) {
    if (line.startsWith("|") && !inTable) tables.push([]);
    inTable = line.startsWith("|");
    if (!inTable || /^[|\s-]+$/.test(line)) continue;
    // A bar in a code span stands as \| in the source.
    const cells = line.replaceAll("\\|", "\0").split("|").slice(1, -1);
    tables.at(-1)!.push(cells.map((cell) => cell.replaceAll("\0", "|").trim()));
  }
  const headings = [...prose.matchAll(/^(#+) /gm)].map((match) => match[1]!.length);
  return { name, text, prose, headings, blocks, tables };
}

/** What stands between backticks. */
export function codeSpans(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map((match) => match[1]!);
}

/** The text of a cell that is one code span; `undefined` for prose and for none. */
export function onlyCode(cell: string): string | undefined {
  return /^`([^`]+)`$/.exec(cell)?.[1];
}

/** The first command of a shell block, by which tests know it. */
export function firstCommand(block: string): string {
  return block.split("\n")[0]!.replace(/\s+#.*$/, "");
}
