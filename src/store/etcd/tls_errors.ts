/**
 * What errors of connections mean for an operator, and what to do about them: those of `node:tls`
 * (OpenSSL's names) and of rustls, which speaks through `fetch`.
 *
 * @module
 */
import { describeError } from "../../errors.ts";
import type { Endpoint } from "../../net/mod.ts";
import type { TlsFiles } from "./options.ts";

/** For whom {@linkcode describeTlsError} finds words. */
export interface TlsAttempt {
  readonly endpoint: Pick<Endpoint, "hostname">;
  readonly files: TlsFiles;
}

/** `reason: advice` for a TLS error. Texts it does not know come back as they are. */
export function describeTlsError(error: unknown, attempt: TlsAttempt): string {
  const { endpoint: { hostname }, files: { caFile, certFile } } = attempt;
  const code = error instanceof Error && "code" in error ? `${error.code} ` : "";
  const text = `${code}${describeError(error)}`;
  if (/ERR_TLS_CERT_ALTNAME_INVALID|not valid for name|NotValidForName/i.test(text)) {
    return `the certificate is not valid for ${hostname}${describeNames(error, hostname)}`;
  }
  if (/CaUsedAsEndEntity/.test(text)) {
    return "the server uses a CA's certificate as its own, which this build cannot verify: use " +
      "a build with Deno 2.9, or make one with openssl req -addext basicConstraints=CA:FALSE";
  }
  if (
    /UnknownIssuer|BadSignature|self-signed certificate|UNABLE_TO_(VERIFY_LEAF|GET_ISSUER)|SELF_SIGNED_CERT|CERT_UNTRUSTED|INVALID_CA/
      .test(text)
  ) {
    return "the certificate is not signed by a CA that is trusted: " +
      (caFile === undefined
        ? "give etcd's CA with --etcd-cafile"
        : `is ${caFile} the CA of this etcd?`);
  }
  if (/certificate (has )?expired|CERT_HAS_EXPIRED|: Expired/i.test(text)) {
    return "the certificate has expired: renew it, and check the clocks";
  }
  if (/not valid yet|not yet valid|NotValidYet|CERT_NOT_YET_VALID/i.test(text)) {
    return "the certificate is not valid yet: check the clocks";
  }
  const refused =
    /alert: (UnknownCA|BadCertificate|CertificateUnknown|CertificateExpired|CertificateRevoked|UnsupportedCertificate|AccessDenied)/
      .exec(text);
  // Go says BadCertificate of none, too.
  if (/alert: CertificateRequired/.test(text) || (refused && certFile === undefined)) {
    return "the server demands a client certificate: give --etcd-certfile and --etcd-keyfile";
  }
  if (refused) {
    return `the server refuses the client certificate (${refused[1]}): is it of the CA that etcd ` +
      "trusts, in time, and for clients?";
  }
  if (/alert: (HandshakeFailure|ProtocolVersion)|UNSUPPORTED_PROTOCOL/.test(text)) {
    return "the server and flanneld agree on no TLS version or cipher: etcd must allow TLS 1.2";
  }
  if (
    /InvalidContentType|InvalidMessage|corrupt message|WRONG_VERSION_NUMBER|wrong version number|packet length too long/i
      .test(text)
  ) {
    return "the server does not speak TLS there: use http://";
  }
  if (/before secure TLS connection/.test(text)) return NO_TLS;
  return describeConnectError(describeError(error));
}

/** What is said of a server that speaks TLS where it is asked in clear text. */
export const SPEAKS_TLS = "the server speaks TLS there: use https://";

/** What is made of an end within the handshake; so ends etcd's own port for clear text. */
export const NO_TLS =
  "the connection was closed within the TLS handshake: if the server does not speak TLS there, use http://";

/** What {@linkcode describeConnectError} says of an end without a reason. */
export const CLOSED_BY_SERVER = "the connection was closed by the server";

/** What a failure to connect means, from the text of the error. */
export function describeConnectError(text: string): string {
  if (/ECONNREFUSED|Connection refused/i.test(text)) return "connection refused";
  if (
    /ECONNRESET|EPIPE|Connection reset|connection closed|closed before message|hang up|Socket closed|Failed to connect \(/i
      .test(text)
  ) {
    return CLOSED_BY_SERVER;
  }
  if (/EHOSTUNREACH|No route to host/i.test(text)) return "no route to host";
  if (/ENETUNREACH|Network is unreachable/i.test(text)) return "network is unreachable";
  if (/ETIMEDOUT|timed out/i.test(text)) return "no answer";
  if (/ENOTFOUND|EAI_|failed to lookup|Name resolution failed/i.test(text)) {
    return "the host name cannot be resolved";
  }
  // grpc-js packs the reason in, with the time of day.
  const packed =
    /^No connection established\. Last error: (?:Error: )?(.*?)(?: \(\d{4}-\S+Z\))?\. Resolution/s;
  return packed.exec(text)?.[1] ?? text;
}

/** What the certificate is valid for, as far as the error tells, and what to do. */
function describeNames(error: unknown, hostname: string): string {
  const cert = error instanceof Error && "cert" in error
    ? error.cert as { subjectaltname?: string; subject?: { CN?: unknown } }
    : undefined;
  const kind = /^[\d.]+$|:/.test(hostname) ? "IP" : "DNS";
  const advice = `issue one with subjectAltName=${kind}:${hostname}`;
  if (cert === undefined) return `: ${advice}`;
  const names = printable(cert.subjectaltname ?? "").replaceAll(/(DNS|IP Address):/g, "");
  if (names !== "") return `, but for ${names}: use one of these in --etcd-endpoints, or ${advice}`;
  const { CN } = cert.subject ?? {};
  const only = typeof CN === "string" ? `, it has only the common name ${printable(CN)}` : "";
  return `${only}: ${advice}`;
}

/** Text from a server, short and on one line. */
function printable(text: string): string {
  const line = text.replaceAll(/[^\x20-\x7e]+/g, " ").trim();
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}
