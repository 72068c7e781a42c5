/** Makes services' texts fit for a log. @module */
import { redact } from "../secret.ts";

/**
 * A service's or library's text, fit for a log: one line without URL, query, key id, token or the
 * string to sign, which all come back in messages of this API.
 */
export function cleanText(text: string, maxLength = 300): string {
  const line = redact(text)
    .replaceAll(/server string to sign is\s*:.*/gis, "server string to sign is:[removed]")
    .replaceAll(/,?\s*(?:source|url)\s*:\s*\S+/gi, "")
    .replaceAll(/https?:\/\/[^\s"'<>?]*\?[^\s"'<>]*/gi, "[url removed]")
    .replaceAll(
      /\b(AccessKeyId|AccessKeySecret|SecurityToken|Signature|OIDCToken)(\\?["']?\s*[=:]\s*\\?["']?)[^\s&"'\\,;]+/gi,
      "$1$2[redacted]",
    )
    .replaceAll(/\b(?:LTAI|STS\.|TMP\.)[A-Za-z0-9._-]{6,}/g, "[redacted]")
    // deno-lint-ignore no-control-regex -- hostile text must not reach a terminal
    .replaceAll(/[\s\u0000-\u001f\u007f-\u009f]+/g, " ")
    .trim();
  return line.length > maxLength ? `${line.slice(0, maxLength)}…` : line;
}
