/** Reads the members of a JSON object without case, and collects every fault. @module */
import { ConfigError } from "../errors.ts";
import { Address, Prefix } from "../net/mod.ts";
import { Secret } from "../secret.ts";
import { firstOddCharacter } from "../util/characters.ts";
import { nearest, oneOf } from "../util/nearest.ts";

/** Bounds and default of {@linkcode FieldReader.integer}. */
export interface IntegerOptions {
  readonly min: number;
  readonly max: number;
  /** 0 reads as absent, as with upstream's keys, which have 0 where nothing is given. */
  readonly zeroIsAbsent?: boolean;
}

/** UDP port that encapsulation uses. */
export const PORT: IntegerOptions = { min: 1, max: 65_535, zeroIsAbsent: true };
/** VXLAN network identifier: 24 bits (RFC 7348 section 5). */
export const VNI: IntegerOptions = { min: 0, max: 16_777_215 };
/** The least MTU that IPv4 hosts must take (RFC 791), up to the largest IP packet. */
export const MTU_BYTES: IntegerOptions = { min: 576, max: 65_535, zeroIsAbsent: true };

/** Far more than any key or token has; what is longer is a file pasted by mistake. */
export const MAX_SECRET_CHARS = 16_384;

/**
 * Reads the members of one JSON object as Go's decoder does for flannel: names match without case,
 * the last of several counts, `null` means absent. Texts are trimmed. All faults are collected, and
 * {@linkcode FieldReader.finish} throws them together; until then a faulty member reads as absent.
 *
 * Faults name the member and the type of its value, but never quote a text, which may be a secret.
 *
 * @example
 * ```ts
 * import { FieldReader, PORT } from "./fields.ts";
 *
 * const fields = new FieldReader({ type: "vxlan", port: 8472 }, { subject: "Backend" });
 * fields.string("Type");
 * const port = fields.integer("Port", PORT) ?? 8472;
 * const warnings = fields.finish();
 * ```
 */
export class FieldReader {
  readonly #members = new Map<string, { name: string; value: unknown }>();
  readonly #known = new Set<string>();
  readonly #path: string;
  readonly #subject: string;
  readonly #faults: string[] = [];
  readonly #warnings: string[] = [];

  /**
   * Reads `object`. `subject` is what messages call it (`Backend`); its members are called
   * `Backend.Name`, or just `Name` with an empty `path`.
   */
  constructor(
    object: Readonly<Record<string, unknown>>,
    options: { readonly subject: string; readonly path?: string },
  ) {
    this.#subject = options.subject;
    const path = options.path ?? options.subject;
    this.#path = path === "" ? "" : `${path}.`;
    for (const [name, value] of Object.entries(object)) {
      const earlier = this.#members.get(foldCase(name));
      if (earlier !== undefined && value === null) continue;
      if (earlier !== undefined && earlier.value !== null) {
        this.warn(
          `${this.#path}${printable(earlier.name)} is given again as ${printable(name)}, ` +
            `which counts`,
        );
      }
      this.#members.set(foldCase(name), { name, value });
    }
  }

  /** Every fault so far. */
  get faults(): readonly string[] {
    return this.#faults;
  }

  /** Notes a fault; `text` is a sentence without its full stop. */
  fault(text: string): void {
    this.#faults.push(text);
  }

  /** Notes a fault of one member: `Backend.<name> <text>`. */
  faultOf(name: string, text: string): void {
    this.fault(`${this.#path}${name} ${text}`);
  }

  warn(text: string): void {
    this.#warnings.push(text);
  }

  /** The member's JSON value; `undefined` if absent or `null`. */
  raw(name: string): unknown {
    this.#known.add(name);
    return this.#members.get(foldCase(name))?.value ?? undefined;
  }

  /** Whether the member is present, even as `null`. */
  has(name: string): boolean {
    this.#known.add(name);
    return this.#members.has(foldCase(name));
  }

  /** A text; an empty one reads as absent, as upstream's backends take it. */
  string(name: string): string | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (typeof value === "string") return value.trim() || undefined;
    this.faultOf(name, `must be a string, not ${kindOf(value)}`);
    return undefined;
  }

  /** Like {@linkcode FieldReader.string}, wrapped so that it cannot be printed. */
  secret(name: string): Secret | undefined {
    const value = this.string(name);
    if (value === undefined) return undefined;
    if (value.length <= MAX_SECRET_CHARS) return new Secret(value);
    this.faultOf(name, `must not have more than ${MAX_SECRET_CHARS} characters`);
    return undefined;
  }

  /** One of `choices`, which are lower case; the text matches without case. */
  choice<const Choice extends string>(
    name: string,
    choices: readonly Choice[],
  ): Choice | undefined {
    const value = this.string(name);
    if (value === undefined) return undefined;
    const found = choices.find((choice) => choice === value.toLowerCase());
    if (found === undefined) {
      this.faultOf(name, `must be ${oneOf(choices, value)}${oddity(value)}`);
    }
    return found;
  }

  boolean(name: string): boolean | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === "boolean") return value;
    this.faultOf(name, `must be true or false, not ${kindOf(value)}${quotesHint(value)}`);
    return undefined;
  }

  /** A whole number from `min` to `max`. */
  integer(name: string, { min, max, zeroIsAbsent }: IntegerOptions): number | undefined {
    const value = this.raw(name);
    if (value === undefined || (zeroIsAbsent && value === 0)) return undefined;
    if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) {
      return value;
    }
    this.faultOf(
      name,
      `must be a whole number from ${min} to ${max}, not ${kindOf(value)}${quotesHint(value)}`,
    );
    return undefined;
  }

  /** A list of texts without empty ones; a single text counts as a list of one. */
  stringList(name: string): readonly string[] | undefined {
    const value = this.raw(name);
    if (value === undefined || value === "") return undefined;
    const list = Array.isArray(value) ? value : [value];
    const bad = list.findIndex((each) => typeof each !== "string" || each === "");
    if (list.length === 0) {
      this.faultOf(name, "must not be an empty list");
    } else if (bad !== -1) {
      this.faultOf(name, `must be a string or a list of strings, without ${kindOf(list[bad])}`);
    } else {
      return list;
    }
    return undefined;
  }

  /** An IP address, of `family` if given. */
  address(name: string, { family }: { readonly family?: 4 | 6 } = {}): Address | undefined {
    const parse = (text: string) =>
      family === 4 ? Address.tryParse(text)?.unmapped() : Address.tryParse(text);
    return this.#parsed(name, parse, family, "address");
  }

  /** An IP prefix in CIDR notation, of `family` if given; host bits are dropped. */
  prefix(name: string, { family }: { readonly family?: 4 | 6 } = {}): Prefix | undefined {
    const example = family === 6 ? "fd00:10::/56" : "10.3.0.0/16";
    return this.#parsed(name, Prefix.tryParse, family, `network such as ${example}`);
  }

  #parsed<Value extends { readonly family: 4 | 6 }>(
    name: string,
    parse: (text: string) => Value | undefined,
    family: 4 | 6 | undefined,
    noun: string,
  ): Value | undefined {
    const text = this.string(name);
    if (text === undefined) return undefined;
    const value = parse(text);
    if (value && value.family === (family ?? value.family)) return value;
    const ofFamily = family === undefined ? "an IP" : `an IPv${family}`;
    this.faultOf(name, `must be ${ofFamily} ${noun}${oddity(text)}`);
    return undefined;
  }

  /**
   * The warnings, with one for each member that nothing asked for.
   *
   * @throws {ConfigError} With every fault.
   */
  finish(): readonly string[] {
    const known = new Set([...this.#known].map(foldCase));
    for (const [folded, { name }] of this.#members) {
      if (known.has(folded)) continue;
      const hint = nearest(name, this.#known);
      this.#warnings.push(
        `${this.#path}${printable(name)} is not known and has no effect` +
          (hint === undefined ? "" : `; did you mean ${hint}?`),
      );
    }
    if (this.#faults.length > 0) throw new ConfigError(this.#subject, this.#faults);
    return this.#warnings;
  }
}

/** Names that Go's JSON decoder takes for the same one fold alike (bytes.EqualFold). */
function foldCase(name: string): string {
  // U+017F folds to "s" and U+212A to "k" in Go; toLowerCase() does only the second.
  return name.replaceAll("\u017f", "s").toLowerCase();
}

/** The type of a JSON value, with a number's value. */
export function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (value === "") return "an empty string";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  return typeof value === "number" ? String(value) : `a ${typeof value}`;
}

/** What in a wrong text looks right and is not; no more of it is said. */
function oddity(text: string): string {
  const odd = firstOddCharacter(text);
  return odd === undefined ? "" : `; it holds ${odd}`;
}

/** For a number or boolean that was written as a text. */
function quotesHint(value: unknown): string {
  return typeof value === "string" && /^(?:\d+|true|false)$/.test(value.trim())
    ? "; leave out its quotes"
    : "";
}

/** A name from outside, short, on one line, and with the code of what cannot be seen. */
export function printable(name: string): string {
  const short = name.length > 64 ? `${name.slice(0, 64)}…` : name;
  if (/^[\w.-]+$/.test(short)) return short;
  return JSON.stringify(short).replaceAll(
    /[^ -~\p{L}\p{N}…]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
