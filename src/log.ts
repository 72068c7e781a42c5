/** Logging: one line per event on stderr, handed in, never a global. @module */
import { describeError } from "./errors.ts";
import { LogWriter } from "./log_writer.ts";
import { redact } from "./secret.ts";

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

export interface CreateLoggerOptions {
  /** `human` is one readable line per event, `json` one object per line. */
  readonly format: "human" | "json";
  /** 0 writes `info` and up, 1 also `debug`, 2 and more also `trace`. */
  readonly verbosity: number;
  /** Takes each finished line, without its line feed. @default {to stderr, by a `LogWriter`} */
  readonly write?: (line: string) => void;
  /** @default {() => new Date()} */
  readonly clock?: () => Date;
}

const LEVELS: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error"];

// Limits for one event: names and values come from other nodes too, and must not fill the disk.
const MAX_TEXT_CHARS = 2048;
const MAX_ITEMS = 50;
const MAX_DEPTH = 5;

/**
 * A logger that writes `<time> <LEVEL> <component>: <message> <key>=<value> …`, or JSON objects
 * with `time`, `level`, `component`, `message` and `fields`. Whatever is logged, an event is one
 * line (control characters are escaped), secrets are redacted, and no call ever throws: a log that
 * cannot be written must not end the daemon.
 */
export function createLogger(options: CreateLoggerOptions): Logger {
  const { format, verbosity, write = new LogWriter().write, clock = () => new Date() } = options;
  const lowest = Math.max(0, 2 - Math.max(0, verbosity));
  const compose = format === "json" ? composeJson : composeHuman;

  function makeLogger(component: string): Logger {
    function logAt(level: LogLevel) {
      if (LEVELS.indexOf(level) < lowest) return () => {};
      return (message: string, fields: LogFields = {}) => {
        try {
          const event = { time: clock().toISOString(), level, component, message, fields };
          write(redact(escapeControls(compose(event))));
        } catch { /* see above */ }
      };
    }
    return {
      trace: logAt("trace"),
      debug: logAt("debug"),
      info: logAt("info"),
      warn: logAt("warn"),
      error: logAt("error"),
      child: (name) => makeLogger(component === "" ? name : `${component}/${name}`),
    };
  }
  return makeLogger("");
}

interface LogEvent {
  readonly time: string;
  readonly level: LogLevel;
  readonly component: string;
  readonly message: string;
  readonly fields: LogFields;
}

function composeHuman({ time, level, component, message, fields }: LogEvent): string {
  const parts = [time, level.toUpperCase().padEnd(5)];
  if (component !== "") parts.push(`${component}:`);
  parts.push(plainText(String(message)));
  for (const [name, value] of printableFields(fields)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    const bare = typeof value !== "string" || /^[^\s"=]+$/.test(text);
    parts.push(
      `${/^[\w.-]+$/.test(name) ? name : JSON.stringify(name)}=` +
        (bare ? text : JSON.stringify(text)),
    );
  }
  return parts.join(" ");
}

function composeJson({ time, level, component, message, fields }: LogEvent): string {
  const printable = printableFields(fields);
  return JSON.stringify({
    time,
    level,
    ...(component === "" ? {} : { component }),
    message: plainText(String(message)),
    ...(printable.length === 0 ? {} : { fields: Object.fromEntries(printable) }),
  });
}

function printableFields(fields: LogFields): [string, unknown][] {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => [plainText(name), toPrintable(value, [])]);
}

/** `value` as what JSON can hold, short, without secrets; never throws. */
function toPrintable(value: unknown, ancestors: readonly unknown[]): unknown {
  try {
    switch (typeof value) {
      case "string":
        return plainText(value);
      case "number":
        return Number.isFinite(value) ? value : String(value);
      case "boolean":
        return value;
      case "object":
        return value === null ? null : objectToPrintable(value, ancestors);
      default: // bigint, symbol, function, undefined
        return plainText(String(value));
    }
  } catch {
    return "[unprintable]"; // a getter or toJSON() of someone else's object threw
  }
}

function objectToPrintable(value: object, ancestors: readonly unknown[]): unknown {
  if (ancestors.includes(value)) return "[cycle]";
  if (ancestors.length >= MAX_DEPTH) return "[…]";
  const path = [...ancestors, value];
  if (value instanceof Error) return plainText(describeError(value));
  if (value instanceof RegExp) return plainText(String(value));
  if (value instanceof URL && (value.username !== "" || value.password !== "")) {
    const url = new URL(value);
    url.username = url.password = "";
    return plainText(url.href);
  }
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    return `[${value.byteLength} bytes]`;
  }
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return toPrintable(value.toJSON(), path);
  }
  if (value instanceof Map) return objectToPrintable(Object.fromEntries(value), path);
  if (Array.isArray(value) || value instanceof Set) {
    const list = [...value];
    const shown = list.slice(0, MAX_ITEMS).map((each) => toPrintable(each, path));
    return list.length > MAX_ITEMS ? [...shown, `… ${list.length - MAX_ITEMS} more`] : shown;
  }
  const names = Object.keys(value);
  const entries = names.slice(0, MAX_ITEMS).map((name) => {
    return [plainText(name), toPrintable((value as Record<string, unknown>)[name], path)];
  });
  if (names.length > MAX_ITEMS) entries.push(["…", `${names.length - MAX_ITEMS} more`]);
  return Object.fromEntries(entries);
}

/** Redacted, then cut: the other way round could leave the first half of a secret. */
function plainText(text: string): string {
  const safe = redact(text);
  return safe.length > MAX_TEXT_CHARS
    ? `${safe.slice(0, MAX_TEXT_CHARS)}… (${safe.length} characters)`
    : safe;
}

/** Escapes what would break the line or steer a terminal; in JSON it only occurs in strings. */
function escapeControls(line: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what this is about
  return line.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (char) => {
    if (char === "\n") return "\\n";
    return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
