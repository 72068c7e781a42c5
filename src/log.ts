/**
 * Logging: one line per event on stderr, handed in, never a global.
 *
 * @module
 */

/** `trace` is `-v=2` and up, `debug` is `-v=1`; `info` and above are always written. */
export type LogLevel = "trace" | "debug" | "info" | "warn" | "error";

/** Values that belong to an event; printed as `key=value` or as JSON members. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Writes events. Every text passes through `redact()` before it leaves the process. */
export interface Logger {
  trace(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger whose events carry `component`. */
  child(component: string): Logger;
}
