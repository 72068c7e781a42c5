/** The address of one member of etcd, as people write it in flags and environment files. */

/** Where a member of etcd serves. */
export interface Endpoint {
  /** Canonical text with the port and without credentials: `https://10.0.0.5:2379`, `unix:///path`. */
  readonly url: string;
  readonly secure: boolean;
  /** Name or address; an IPv6 address without brackets. That of this host for a unix socket. */
  readonly hostname: string;
  /** 0 for a unix socket. */
  readonly port: number;
  /** The path of a unix socket. */
  readonly path?: string;
  /** The user and password that stood before the host; to be taken out before it is kept. */
  readonly user?: { readonly name: string; readonly password: string };
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
 * port; with a scheme there may be `user:password@`. Or `unix:path`, as etcd's own client has it. A
 * path after a host is left out, as there.
 *
 * @param defaults.secure Whether an endpoint without a scheme speaks TLS.
 * @returns What the text must be, for one that names none; it never quotes the text, which may hold
 * a password.
 */
export function parseEndpoint(text: string, defaults: { secure: boolean }): Endpoint | string {
  const trimmed = text.trim();
  if (trimmed === "") return "it must not be empty";
  if (/^unixs?:/i.test(trimmed) && !QUOTES.test(trimmed)) return parseSocket(trimmed, defaults);
  const withUser = /^(https?:\/\/)([^/?#]*)@([^]*)$/i.exec(trimmed);
  if (withUser) {
    const [, scheme, info, rest] = withUser;
    const endpoint = parseEndpoint(`${scheme}${rest}`, defaults);
    const user = parseUser(info!);
    if (typeof endpoint === "string" || typeof user === "string") {
      return typeof user === "string" ? user : endpoint;
    }
    const note =
      `${endpoint.url}: what stands before the @ has no effect without user and password`;
    return user ? { ...endpoint, user } : { ...endpoint, notes: [...endpoint.notes, note] };
  }
  if (QUOTES.test(trimmed)) return "it must be written without quotes";
  if (/^(?:[a-z]+:\/\/)?[^/?#]*@/i.test(trimmed)) {
    return "it must have a scheme where it holds a user and password, as in " +
      "http://USER:PASSWORD@HOST:PORT";
  }
  if (/[\s;|]/.test(trimmed)) return "it must be one endpoint; several are separated by commas";
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

/** User and password as Go's URLs hold them; `undefined` if one is missing. */
function parseUser(text: string): Endpoint["user"] | string {
  const colon = text.indexOf(":");
  if (colon <= 0 || colon === text.length - 1) return undefined;
  try {
    const name = decodeURIComponent(text.slice(0, colon));
    return { name, password: decodeURIComponent(text.slice(colon + 1)) };
  } catch {
    return 'it must have each "%" of its user and password written as %25';
  }
}

/** `unix:///absolute/path`, `unix:path`, and `unix://host:port`, a name in the working directory. */
function parseSocket(text: string, { secure }: { secure: boolean }): Endpoint | string {
  const [, scheme, path] = /^(unixs?):(?:\/\/)?([^]*)$/i.exec(text)!;
  if (path === "") return "it must have a path after unix:, as in unix:///run/etcd.sock";
  if (secure || scheme!.toLowerCase() === "unixs") {
    return "it must be http or https: TLS over unix sockets is not supported";
  }
  const url = path!.startsWith("/") ? `unix://${path}` : `unix:${path}`;
  return { url, secure: false, hostname: "localhost", port: 0, path: path!, notes: [] };
}
