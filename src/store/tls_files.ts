import { describeError } from "../errors.ts";
import type { TlsFiles } from "./etcd_options.ts";

/** What `Deno.connectTls` and `Deno.createHttpClient` take, PEM texts. */
export interface TlsMaterial {
  readonly caCerts?: string[];
  readonly cert?: string;
  readonly key?: string;
}

/**
 * Reads the files as they are now. Without a CA file the roots of the system are trusted.
 *
 * @throws {Error} Naming the file that cannot be used and why; never its content.
 */
export async function readTlsFiles(files: TlsFiles): Promise<TlsMaterial> {
  const [ca, cert, key] = await Promise.all([
    readPem(files.caFile, "CA file", "CERTIFICATE"),
    readPem(files.certFile, "client certificate", "CERTIFICATE"),
    readPem(files.keyFile, "client key", "PRIVATE KEY"),
  ]);
  return {
    ...(ca === undefined ? {} : { caCerts: [ca] }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
}

async function readPem(
  path: string | undefined,
  what: string,
  label: string,
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (cause) {
    throw new Error(describeError(cause, `Cannot read the ${what} ${path}`), { cause });
  }
  if (!new RegExp(`-----BEGIN (?:[A-Z0-9]+ )*${label}-----`).test(text)) {
    throw new Error(`Cannot use the ${what} ${path}: it holds no PEM block "${label}"`);
  }
  return text;
}

/** Whether two readings of the files gave the same. */
export function sameTlsMaterial(a: TlsMaterial, b: TlsMaterial): boolean {
  return a.cert === b.cert && a.key === b.key && a.caCerts?.[0] === b.caCerts?.[0];
}

/**
 * What a TLS error of Deno (rustls) means for an operator: `the certificate is not valid for
 * 10.0.0.5`. Texts it does not know come back as they are.
 */
export function describeTlsError(error: unknown, hostname: string): string {
  const text = describeError(error);
  if (/not valid for name|NotValidForName/i.test(text)) {
    return `the certificate is not valid for ${hostname}`;
  }
  if (/UnknownIssuer|BadSignature/.test(text)) {
    return "the certificate is not signed by a CA that is trusted";
  }
  if (/certificate (has )?expired|: Expired/i.test(text)) return "the certificate has expired";
  if (/not valid yet|NotValidYet/i.test(text)) {
    return "the certificate is not valid yet: check the clocks";
  }
  if (/CaUsedAsEndEntity/.test(text)) return "the server uses a CA certificate as its own";
  if (/CertificateRequired/.test(text)) return "the server demands a client certificate";
  if (/(UnknownCA|BadCertificate|CertificateUnknown|CertificateExpired)/.test(text)) {
    return "the server refuses the client certificate";
  }
  if (/InvalidContentType|InvalidMessage|corrupt message/.test(text)) {
    return "the server does not speak TLS";
  }
  return describeConnectError(text);
}

/** What a failure to connect means, from the text of the error. */
export function describeConnectError(text: string): string {
  if (/ECONNREFUSED|Connection refused/i.test(text)) return "connection refused";
  if (/ECONNRESET|Connection reset|connection closed|closed before message/i.test(text)) {
    return "the connection was closed by the server";
  }
  if (/EHOSTUNREACH|No route to host/i.test(text)) return "no route to host";
  if (/ENETUNREACH|Network is unreachable/i.test(text)) return "network is unreachable";
  if (/ETIMEDOUT|timed out/i.test(text)) return "no answer";
  if (/ENOTFOUND|EAI_|failed to lookup|Name resolution failed/i.test(text)) {
    return "the host name cannot be resolved";
  }
  return text;
}
