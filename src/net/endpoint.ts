/** The address of one member of etcd, as people write it in flags and environment files. */
export interface Endpoint {
  /** Canonical text with the port, `https://10.0.0.5:2379`. */
  readonly url: string;
  readonly secure: boolean;
  /** Name or address; an IPv6 address without brackets. */
  readonly hostname: string;
  readonly port: number;
  /** What of the text has no effect or was filled in, one sentence each. */
  readonly notes: readonly string[];
}

/** What is asked of an endpoint without a port: etcd's client port. */
const ETCD_PORT = 2379;

/** What people put around a value: an environment file of systemd or Docker keeps some of it. */
const QUOTES = /["'`\u2018\u2019\u201c\u201d]/;

/** Host (an IPv6 address in brackets), port, and what may follow. */
const FORM = /^(\[[^\]]*\]|[^:/?#[\]]+)(?::([^/?#]*))?([/?#].*)?$/;

/**
 * The endpoint that `text` names: `http://host:port`, `https://host:port`, or without a scheme or
 * port. A path is left out, as etcd's own client does.
 *
 * @param defaults.secure Whether an endpoint without a scheme speaks TLS.
 * @returns What the text must be, for one that names none; it never quotes the text, which may hold
 * a password.
 */
export function parseEndpoint(text: string, defaults: { secure: boolean }): Endpoint | string {
  const trimmed = text.trim();
  if (trimmed === "") return "it must not be empty";
  if (QUOTES.test(trimmed)) return "it must be written without quotes";
  if (trimmed.includes("@")) {
    return "it must hold no user and password (for etcd, there are FLANNELD_ETCD_USERNAME and " +
      "FLANNELD_ETCD_PASSWORD)";
  }
  if (/[\s;|]/.test(trimmed)) return "it must be one endpoint; several are separated by commas";
  if (/^unixs?:/i.test(trimmed)) {
    return "it must be reachable by IP: unix sockets are not supported, give an http:// address " +
      "of this host, such as http://127.0.0.1:2379";
  }
  const cut = trimmed.indexOf("://");
  const scheme = cut < 0 ? undefined : trimmed.slice(0, cut);
  if (scheme !== undefined && !/^https?$/i.test(scheme)) {
    return "it must start with http:// or https://";
  }
  const address = cut < 0 ? trimmed : trimmed.slice(cut + 3);
  if (/^[\da-f]*:[\da-f]*:[\da-f:.]*(\/.*)?$/i.test(address)) {
    return "it must have its IPv6 address in brackets, such as http://[2001:db8::5]:2379";
  }
  if (/^https?:(?!\d+(?:[/?#]|$))/i.test(address)) {
    return "it must hold its scheme once, and two slashes after it, as in http://HOST:PORT";
  }
  // No socket takes the link that such an address needs.
  if (/^\[(?:fe[89ab][\da-f]:|[^\]]*%)/i.test(address)) {
    return "it must have an address that needs no link (%eth0): link-local ones are not supported";
  }
  const match = FORM.exec(address);
  if (match === null) {
    return "it must be of the form http://HOST:PORT, https://HOST:PORT or HOST:PORT";
  }
  const [, host = "", portText, path = ""] = match;
  const port = portText === undefined ? ETCD_PORT : Number(portText || NaN);
  if (!/^\d*$/.test(portText ?? "") || !(port >= 1 && port <= 65_535)) {
    return "it must have a port from 1 to 65535 after the colon";
  }
  const parsed = URL.parse(`http://${host}/`);
  if (parsed === null || /%/.test(host) || /^\d+$/.test(host)) {
    return "it must name a host or an IP address";
  }
  const secure = scheme === undefined ? defaults.secure : scheme.toLowerCase() === "https";
  // Of names the URL's own form is not taken: it reads 10.1 as 10.0.0.1.
  const canonical = host.startsWith("[") ? parsed.hostname : host.toLowerCase();
  const url = `${secure ? "https" : "http"}://${canonical}:${port}`;
  return {
    url,
    secure,
    hostname: canonical.replace(/^\[(.*)\]$/, "$1"),
    port,
    notes: [
      ...(portText === undefined ? [`${url}: no port was given, so ${port} is tried`] : []),
      ...(/^\/*$/.test(path)
        ? []
        : [`${url}: what follows the port was left out, it has no effect`]),
    ],
  };
}
