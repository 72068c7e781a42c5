/** Loggers for tests. @module */
import { createLogger, type Logger } from "../../src/log.ts";

/** Writes nothing. */
export const SILENT: Logger = createLogger({ format: "human", verbosity: 0, write: () => {} });

/** A logger whose lines are kept, without their time: `WARN  text`. */
export function recordLog(verbosity = 0): { readonly lines: string[]; readonly log: Logger } {
  const lines: string[] = [];
  const write = (line: string) => void lines.push(line.replace(/^\S+ /, ""));
  return { lines, log: createLogger({ format: "human", verbosity, write }) };
}
