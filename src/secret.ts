/**
 * Secrets that cannot be printed by accident.
 *
 * @module
 */

const known = new Set<string>();
const REDACTED = "[redacted]";

/**
 * A secret text. Printing, inspecting or serialising it yields `[redacted]`; only
 * {@linkcode Secret.reveal} gives the text. Each value is remembered so that {@linkcode redact}
 * removes it from texts that others composed (a library's error message, say).
 */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
    rememberSecret(text);
  }

  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [Symbol.for("Deno.customInspect")](): string {
    return REDACTED;
  }
}

/**
 * Makes {@linkcode redact} remove `text`, also in its percent-encoded, JSON and base64 form. Texts of
 * fewer than four characters are ignored, as removing them would garble unrelated output.
 */
export function rememberSecret(text: string): void {
  if (text.length < 4) return;
  for (const form of formsOf(text)) known.add(form);
}

/**
 * Lets go of a secret that is void: temporary keys come anew every hour, and neither memory nor
 * the time that {@linkcode redact} takes may grow with them.
 */
export function forgetSecret(text: string): void {
  for (const form of formsOf(text)) known.delete(form);
}

function formsOf(text: string): readonly string[] {
  return [
    text,
    encodeURIComponent(text),
    JSON.stringify(text).slice(1, -1),
    btoa(String.fromCharCode(...new TextEncoder().encode(text))),
  ];
}

/** `text` with each known secret replaced by `[redacted]`. */
export function redact(text: string): string {
  for (const secret of known) {
    if (text.includes(secret)) text = text.replaceAll(secret, REDACTED);
  }
  return text;
}
