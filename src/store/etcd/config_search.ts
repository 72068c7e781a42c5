/**
 * Where a network config is that is not where it is looked for: at the prefix itself, without the
 * leading slash, in other case, at upstream's default prefix while another one is asked for.
 *
 * @module
 */
import { configKey, DEFAULT_PREFIX, joinPath } from "./options.ts";

/** Keys that are named at most. */
const MAX_NAMED = 3;

/** Keys to ask for by name, also where the user may not list the store. */
export function likelyConfigKeys(prefix: string): string[] {
  const keys = [prefix, DEFAULT_PREFIX].flatMap((each) => {
    const rooted = joinPath("/", each);
    return [configKey(rooted), configKey(rooted.slice(1)), rooted, rooted.slice(1), `${rooted}/`];
  });
  return [...new Set(keys)].filter((key) => key !== "" && key !== "/" && key !== configKey(prefix));
}

/** Whether a key of this name, met in the store, is worth reading. */
export function mayHoldConfig(key: string, prefix: string): boolean {
  // Other people's keys are shown to a person and put into a command.
  if (!/^[\x21-\x7e]{1,256}$/.test(key)) return false;
  return key !== configKey(prefix) && (/(^|\/)config$/i.test(key) || gist(key) === gist(prefix));
}

/** Whether `value` is meant to be a network config, be it well formed or not. */
export function looksLikeConfig(value: string): boolean {
  return /"(ipv6)?network"\s*:/i.test(value.slice(0, 100_000));
}

/** The nearest to `prefix` first, and not too many. */
export function nearestConfigs(keys: readonly string[], prefix: string): string[] {
  const wanted = gist(prefix);
  const distance = (key: string) => gist(key) === wanted ? 0 : 1;
  return [...new Set(keys)].sort((a, b) => distance(a) - distance(b)).slice(0, MAX_NAMED);
}

/** The prefix under which `key` is the config, or `undefined` if it is under none. */
export function prefixOfConfig(key: string): string | undefined {
  const prefix = key.replace(/\/?config$/, "") || "/";
  return configKey(prefix) === key ? prefix : undefined;
}

/** What of a key or prefix people do not get wrong. */
function gist(text: string): string {
  return joinPath("/", text.toLowerCase()).replace(/\/config$/, "");
}
