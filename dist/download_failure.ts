/**
 * Says in one line what Deno or npm could not download, why, and which variable helps.
 *
 * @module
 */

/** What stands in the way, by the address that was asked and the reason given. */
const ADVICE: readonly (readonly [pattern: RegExp, advice: string])[] = [
  [
    /certificate|UnknownIssuer|self.signed/i,
    "DENO_TLS_CA_STORE=system makes Deno trust the system's certificates, and " +
    "NODE_EXTRA_CA_CERTS names more of them for npm",
  ],
  [/dl\.deno\.land/, "DENORT_BIN names a denort that is on this machine"],
];

const REGISTRY_ADVICE = "NPM_CONFIG_REGISTRY names a registry that can be reached, and " +
  "HTTPS_PROXY a proxy";

/**
 * One line out of what a failed `deno` or `npx` wrote to standard error; `undefined` if no download
 * failed there.
 */
export function describeDownloadFailure(stderr: string): string | undefined {
  // deno-lint-ignore no-control-regex
  const text = stderr.replaceAll(/\x1b\[[\d;]*m/g, "");
  const failure = denoFailure(text) ?? npmFailure(text);
  if (failure === undefined) return undefined;
  const { url, reason } = failure;
  const advice = ADVICE.find(([pattern]) => pattern.test(`${url} ${reason}`))?.[1];
  return `Cannot download ${url}: ${reason}; ${advice ?? REGISTRY_ADVICE}`;
}

interface Failure {
  readonly url: string;
  readonly reason: string;
}

/**
 * `error sending request for url (URL): client error (Connect): … : REASON`, or another reason why
 * a package was not had.
 */
function denoFailure(text: string): Failure | undefined {
  const sent = /error sending request for url \((\S+?)\)(?:: (.*))?$/m.exec(text);
  if (sent) {
    const reason = sent[2]?.replace(/^client error \(\w+\): /, "") ?? "no connection";
    return { url: sent[1]!, reason: lastClauses(reason) };
  }
  const name = /Failed caching npm package '([^']+)'|Failed loading (https?:\S+) for package/
    .exec(text);
  if (!name) return undefined;
  const reason = text.slice(name.index).split("\n")
    .map((line) => /^\s+(?:0: )?(\S.*)$/.exec(line)?.[1]).find((line) => line !== undefined);
  return { url: name[1] ?? name[2]!, reason: reason ?? "Deno does not say why" };
}

/** `npm error network request to URL failed, reason: REASON`, of npm 9 without "error" but "ERR!". */
function npmFailure(text: string): Failure | undefined {
  const match = /request to (\S+) failed, reason: ?(.*)$/m.exec(text);
  if (match) return { url: match[1]!, reason: match[2]!.trim() || "no connection" };
  const [, status, url] = /^npm \S+ (?:code E)?(\d{3}) .*?(https?:\S+)/m.exec(text) ?? [];
  return url === undefined ? undefined : { url, reason: `HTTP status ${status}` };
}

/** Of `tcp connect error: Connection refused (os error 111)` the end, where the reason stands. */
function lastClauses(reason: string): string {
  return reason.split(": ").slice(-2).join(": ").replace(/ \(os error \d+\)$/, "");
}
