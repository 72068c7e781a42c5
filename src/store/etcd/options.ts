/** Reads the options of etcd; names its keys as upstream does. @module */
import { ConfigError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { type Endpoint, parseEndpoint } from "../../net/mod.ts";
import type { Secret } from "../../secret.ts";
import { joinPath } from "../../util/go_path.ts";

/** Upstream's default of `--etcd-prefix`. */
export const DEFAULT_PREFIX = "/coreos.com/network";

/** PEM files. They are read again for each new connection, so replacing them is enough. */
export interface TlsFiles {
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
}

/** How to reach etcd; the same for both APIs. */
export interface EtcdOptions extends TlsFiles {
  /**
   * `http://host:port` or `https://host:port`. Without a port, 2379; without a scheme, http, or https
   * if there is a client certificate, as upstream's client has it.
   */
  readonly endpoints: readonly string[];
  /** @default {"/coreos.com/network"} */
  readonly prefix?: string;
  readonly username?: string;
  readonly password?: Secret;
  readonly log: Logger;
}

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
  // A flag that was not given is an empty text upstream.
  const caFile = options.caFile || undefined;
  const certFile = options.certFile || undefined;
  const keyFile = options.keyFile || undefined;
  const username = options.username || undefined;
  const { password } = options;
  const secure = certFile !== undefined && keyFile !== undefined;
  for (const [index, text] of options.endpoints.entries()) {
    const endpoint = parseEndpoint(text, { secure });
    if (typeof endpoint === "string") {
      faults.push(`endpoint ${index + 1} cannot be used: ${endpoint}`);
    } else if (endpoint.user !== undefined) {
      faults.push(`endpoint ${index + 1} cannot be used: it must hold no user and password`);
    } else if (!endpoints.some(({ url }) => url === endpoint.url)) {
      endpoints.push(endpoint);
      warnings.push(...endpoint.notes);
    }
  }
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
  const overheard = plain.filter(({ hostname }) => !isLoopback(hostname));
  if (password !== undefined && overheard.length > 0) {
    const urls = overheard.map(({ url }) => url).join(", ");
    warnings.push(`The etcd password is sent in clear text to ${urls}: use https there`);
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

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || /^127\.[\d.]+$/.test(hostname);
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
