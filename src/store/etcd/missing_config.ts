/**
 * Finds a network config that is not where it is looked for: at the prefix itself, without the
 * leading slash, in other case, or at upstream's default prefix.
 *
 * @module
 */
import { joinPath } from "../../util/go_path.ts";
import { configKey, DEFAULT_PREFIX, type EtcdSettings } from "./options.ts";

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
  // Other people's keys are shown to an operator and put into a command.
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

/** What to do about configs that are not where they are looked for. */
export function nameNear(
  keys: readonly string[],
  { prefix, holder, flag = "" }: {
    readonly prefix: string;
    readonly holder: string;
    /** Chooses the store that holds them. */
    readonly flag?: string;
  },
): string[] {
  return nearestConfigs(keys, prefix).map((key) => {
    const other = prefixOfConfig(key);
    return `${holder} holds a network config at ${key}` +
      (other === undefined
        ? `: the place for it is ${configKey(prefix)}`
        : `: use ${flag}--etcd-prefix=${quote(other)} if that is the one`);
  });
}

/** The line for a shell that writes `config`; a password is asked for, not shown. */
export function configCommand(settings: EtcdSettings, api: "v3" | "v2", config: string): string {
  const { caFile, certFile, keyFile } = settings.tls;
  const v3 = api === "v3";
  const flags = [
    `--endpoints=${settings.endpoints.map(({ url }) => url).join(",")}`,
    ...(caFile === undefined ? [] : [`${v3 ? "--cacert" : "--ca-file"}=${quote(caFile)}`]),
    ...(certFile === undefined ? [] : [`${v3 ? "--cert" : "--cert-file"}=${quote(certFile)}`]),
    ...(keyFile === undefined ? [] : [`${v3 ? "--key" : "--key-file"}=${quote(keyFile)}`]),
    ...(settings.credentials === undefined
      ? []
      : [`${v3 ? "--user" : "--username"}=${quote(settings.credentials.username)}`]),
  ];
  const verb = v3 ? "put" : "set";
  const key = quote(configKey(settings.prefix));
  return `ETCDCTL_API=${v3 ? 3 : 2} etcdctl ${flags.join(" ")} ${verb} ${key} ${quote(config)}`;
}

/** `text` as one word for a shell. */
export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
