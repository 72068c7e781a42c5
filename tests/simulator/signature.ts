import { createHmac } from "node:crypto";

/**
 * The string to sign of an RPC-style request (signature version 1.0).
 *
 * @param parameters All of them, from URL and form together; `Signature` is left out.
 */
export function stringToSign(method: string, parameters: ReadonlyMap<string, string>): string {
  const canonical = [...parameters]
    .filter(([name]) => name !== "Signature")
    .sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0)
    .map(([name, value]) => `${percentEncode(name)}=${percentEncode(value)}`)
    .join("&");
  return `${method}&${percentEncode("/")}&${percentEncode(canonical)}`;
}

/** HMAC-SHA1 of `text` with the secret and `&`, in base64. */
export function sign(text: string, secret: string): string {
  return createHmac("sha1", `${secret}&`).update(text).digest("base64");
}

/** RFC 3986: all but letters, digits and `-_.~` is encoded. */
export function percentEncode(text: string): string {
  return encodeURIComponent(text)
    .replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}
