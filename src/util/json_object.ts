/** JSON whose members are not known. @module */

/** An object of JSON, or of what else is alike. */
export type JsonObject = { readonly [key: string]: unknown };

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
