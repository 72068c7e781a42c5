/**
 * Secrets that cannot be printed by accident.
 *
 * @module
 */

const known = new Set<string>();
const REDACTED = "[redacted]";
const SHORTEST_SECRET = 4;

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
 * Makes {@linkcode redact} remove `text`, also where it is part of a URL, a form, JSON or base64.
 * Texts of fewer than four characters are ignored, as removing them would garble unrelated output.
 */
export function rememberSecret(text: string): void {
  if (text.length < SHORTEST_SECRET) return;
  for (const form of formsOf(text)) known.add(form);
}

/**
 * Lets go of a secret that is void: temporary keys come anew every hour, and neither memory nor
 * the time that {@linkcode redact} takes may grow with them.
 */
export function forgetSecret(text: string): void {
  for (const form of formsOf(text)) known.delete(form);
}

/** `text` with each known secret replaced by `[redacted]`; overlapping ones go together. */
export function redact(text: string): string {
  const found: { from: number; to: number }[] = [];
  for (const secret of known) {
    for (let at = text.indexOf(secret); at !== -1; at = text.indexOf(secret, at + 1)) {
      found.push({ from: at, to: at + secret.length });
    }
  }
  if (found.length === 0) return text;
  found.sort((a, b) => a.from - b.from);
  let clean = "";
  let done = 0;
  for (let i = 0; i < found.length;) {
    const { from } = found[i]!;
    let { to } = found[i]!;
    while (++i < found.length && found[i]!.from < to) to = Math.max(to, found[i]!.to);
    clean += text.slice(done, from) + REDACTED;
    done = to;
  }
  return clean + text.slice(done);
}

/** How `text` may stand in a text that others composed. */
function formsOf(text: string): Set<string> {
  // Half of a surrogate pair has no encoding; encoders put U+FFFD in its place.
  const wellFormed = text.toWellFormed();
  const inUrl = encodeURIComponent(wellFormed);
  const forms = [
    text,
    wellFormed,
    inUrl,
    inUrl.replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`),
    new URLSearchParams({ "": wellFormed }).toString().slice(1),
    JSON.stringify(text).slice(1, -1),
    ...base64Forms(new TextEncoder().encode(wellFormed)),
  ];
  return new Set(forms.filter((form) => form.length >= SHORTEST_SECRET));
}

/** Three bytes make four characters: what they look like depends on how many bytes come before. */
function base64Forms(bytes: Uint8Array): string[] {
  return [0, 1, 2].flatMap((before) => {
    const shifted = new Uint8Array(before + bytes.length);
    shifted.set(bytes, before);
    // Characters that hold bits of neighbouring bytes are left out.
    const first = Math.ceil(before * 8 / 6);
    const end = Math.floor(shifted.length * 8 / 6);
    const text = shifted.toBase64().slice(first, end);
    return [text, text.replaceAll("+", "-").replaceAll("/", "_")];
  });
}
