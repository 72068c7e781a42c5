import { ConfigError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Secret } from "../secret.ts";

/** Upstream's default of `--etcd-prefix`. */
export const DEFAULT_PREFIX = "/coreos.com/network";

/** How to reach etcd; the same for both APIs. */
export interface EtcdOptions {
  /** `http://host:port` or `https://host:port`; without a scheme, http; without a port, 2379. */
  readonly endpoints: readonly string[];
  /** @default {"/coreos.com/network"} */
  readonly prefix?: string;
  /** PEM files. They are read again for each new connection, so replacing them is enough. */
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly username?: string;
  readonly password?: Secret;
  readonly log: Logger;
}

/** One member's address. */
export interface Endpoint {
  /** Canonical text, `https://10.0.0.5:2379`. */
  readonly url: string;
  readonly secure: boolean;
  /** Name or address; an IPv6 address without brackets. */
  readonly hostname: string;
  readonly port: number;
}

/** PEM files for TLS, as given. */
export interface TlsFiles {
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
}

/** A user of etcd. */
export interface Credentials {
  readonly username: string;
  readonly password: Secret;
}

/** {@linkcode EtcdOptions}, checked. */
export interface EtcdSettings {
  readonly endpoints: readonly Endpoint[];
  /** Cleaned as Go's `path.Join` does; no slash at the end, except for `/` itself. */
  readonly prefix: string;
  readonly tls: TlsFiles;
  readonly credentials: Credentials | undefined;
  readonly log: Logger;
  /** What is probably not meant, though it works; one sentence each. */
  readonly warnings: readonly string[];
}

/**
 * Checks `options` completely.
 *
 * @throws {ConfigError} With every fault. Never quotes an endpoint that carries credentials.
 */
export function parseEtcdOptions(options: EtcdOptions): EtcdSettings {
  const faults: string[] = [];
  const warnings: string[] = [];
  const endpoints: Endpoint[] = [];
  if (options.endpoints.length === 0) faults.push("no endpoint is given");
  for (const [index, text] of options.endpoints.entries()) {
    const endpoint = parseEndpoint(text.trim());
    if (typeof endpoint === "string") faults.push(`endpoint ${index + 1} ${endpoint}`);
    else if (!endpoints.some(({ url }) => url === endpoint.url)) endpoints.push(endpoint);
  }

  // A flag that was not given is an empty text upstream.
  const caFile = options.caFile || undefined;
  const certFile = options.certFile || undefined;
  const keyFile = options.keyFile || undefined;
  const username = options.username || undefined;
  const { password } = options;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    faults.push(
      certFile === undefined
        ? "a client key is given without its certificate"
        : "a client certificate is given without its key",
    );
  }
  const plain = endpoints.filter((endpoint) => !endpoint.secure);
  if (plain.length > 0 && (caFile ?? certFile ?? keyFile) !== undefined) {
    const urls = plain.map(({ url }) => url).join(", ");
    warnings.push(
      `TLS files are given but not used for ${urls}: an http endpoint is not encrypted`,
    );
  }
  if (password !== undefined && username === undefined) {
    faults.push("a password is given without a user name");
  }
  if (username !== undefined && password === undefined) {
    faults.push("a user name is given without a password");
  }
  if (faults.length > 0) throw new ConfigError("the etcd options", faults);

  return {
    endpoints,
    prefix: joinPath(options.prefix ?? DEFAULT_PREFIX),
    tls: {
      ...(caFile === undefined ? {} : { caFile }),
      ...(certFile === undefined ? {} : { certFile }),
      ...(keyFile === undefined ? {} : { keyFile }),
    },
    credentials: username === undefined || password === undefined
      ? undefined
      : { username, password },
    log: options.log,
    warnings,
  };
}

/** The endpoint in `text`, or what is wrong with it, to follow "endpoint 2 ". */
function parseEndpoint(text: string): Endpoint | string {
  if (text === "") return "is empty";
  if (text.includes("@")) return "carries a user name: give it as an option of its own";
  const match = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(\[[^\]/]*\]|[^:/[\]]+)(?::(\d{1,5}))?\/?$/i.exec(
    text,
  );
  if (!match) return `is not of the form http://host:port: "${text}"`;
  const scheme = match[1]?.toLowerCase() ?? "http";
  if (scheme !== "http" && scheme !== "https") return `has neither http nor https: "${text}"`;
  const port = Number(match[3] ?? 2379);
  if (port < 1 || port > 65535) return `has a port outside 1..65535: "${text}"`;
  const host = match[2]!.toLowerCase();
  if (!URL.canParse(`http://${host}/`)) return `has no usable host: "${text}"`;
  return {
    url: `${scheme}://${host}:${port}`,
    secure: scheme === "https",
    hostname: host.replace(/^\[(.*)\]$/, "$1"),
    port,
  };
}

/**
 * Joins and cleans like Go's `path.Join`, which upstream builds its keys with: empty parts are left
 * out, repeated slashes and `.` go away, `..` takes its parent away.
 */
export function joinPath(...parts: readonly string[]): string {
  const joined = parts.filter((part) => part !== "").join("/");
  if (joined === "") return "";
  const rooted = joined.startsWith("/");
  const clean: string[] = [];
  for (const part of joined.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") clean.push(part);
    else if (clean.length > 0 && clean.at(-1) !== "..") clean.pop();
    else if (!rooted) clean.push(part);
  }
  return rooted ? `/${clean.join("/")}` : clean.join("/") || ".";
}

/** `<prefix>/config`. */
export function configKey(prefix: string): string {
  return joinPath(prefix, "config");
}

/** `<prefix>/subnets/`, with the slash, so that `<prefix>/subnetsfoo` is no part of the range. */
export function subnetsPrefix(prefix: string): string {
  return `${joinPath(prefix, "subnets")}/`;
}

/**
 * `<prefix>/<name>/` for a space of our own beside flannel's keys.
 *
 * @throws {RangeError} If `name` would lead to flannel's own keys, or out of the prefix, or to what
 * etcd v2 hides (a leading underscore).
 */
export function spacePrefix(prefix: string, name: string): string {
  if (
    !/^[a-z0-9][\w.-]*(\/[a-z0-9][\w.-]*)*$/i.test(name) || /^(subnets|config)(\/|$)/.test(name)
  ) {
    throw new RangeError(`Cannot name a space of the store "${name}"`);
  }
  return `${joinPath(prefix, name)}/`;
}
