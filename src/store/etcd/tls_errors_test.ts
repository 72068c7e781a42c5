import assert from "node:assert/strict";
import { describeConnectError, describeTlsError } from "./tls_errors.ts";

function coded(code: string, message: string, more: Record<string, unknown> = {}): Error {
  return Object.assign(new Error(message), { code, ...more });
}

Deno.test("describeTlsError() says what OpenSSL's and rustls' words mean, and what to do", () => {
  const names = (subjectaltname: string | undefined, CN?: string) =>
    coded("ERR_TLS_CERT_ALTNAME_INVALID", "Hostname/IP does not match", {
      cert: { subjectaltname, subject: CN === undefined ? {} : { CN } },
    });
  const cases: readonly (readonly [Error | string, RegExp])[] = [
    [names("DNS:a, IP Address:10.0.0.7"), /not valid for etcd, but for a, 10.0.0.7: use one of/],
    [names(undefined, "node1"), /for etcd, it has only the common name node1: issue one with/],
    [names(undefined), /for etcd: issue one with subjectAltName=DNS:etcd$/],
    [names("DNS:a\n\u001b[31m"), /but for a \[31m: use/],
    [
      'invalid peer certificate: certificate not valid for name "etcd"',
      /not valid for etcd: issue/,
    ],
    ["invalid peer certificate: UnknownIssuer", /not signed by a CA .* --etcd-cafile$/],
    [coded("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "unable to verify"), /not signed by a CA/],
    [coded("DEPTH_ZERO_SELF_SIGNED_CERT", "self-signed certificate"), /not signed by a CA/],
    [coded("SELF_SIGNED_CERT_IN_CHAIN", "self-signed certificate in chain"), /not signed by a CA/],
    [coded("CERT_HAS_EXPIRED", "certificate has expired"), /has expired: renew it/],
    ["invalid peer certificate: certificate expired: verification time …", /has expired: renew/],
    ["invalid peer certificate: certificate not valid yet: …", /not valid yet/],
    ["received fatal alert: CertificateRequired", /demands a client certificate: give/],
    ["received fatal alert: BadCertificate", /demands a client certificate: give/],
    ["received fatal alert: HandshakeFailure", /no TLS version or cipher/],
    ["received corrupt message of type InvalidContentType", /does not speak TLS there: use http/],
    ["Connection refused (os error 111)", /^connection refused$/],
    ["something new", /^something new$/],
  ];
  for (const [error, pattern] of cases) {
    const described = describeTlsError(typeof error === "string" ? new Error(error) : error, {
      endpoint: { hostname: "etcd" },
      files: {},
    });
    assert.match(described, pattern);
    assert.doesNotMatch(described, /[^\x20-\x7e]/);
  }
  const files = { caFile: "/ca.pem", certFile: "/cert.pem", keyFile: "/key.pem" };
  const withFiles = (text: string) =>
    describeTlsError(new Error(text), { endpoint: { hostname: "10.0.0.5" }, files });
  assert.match(
    withFiles("invalid peer certificate: UnknownIssuer"),
    /is \/ca.pem the CA of this etcd/,
  );
  assert.match(withFiles("received fatal alert: UnknownCA"), /refuses .* \(UnknownCA\)/);
  assert.match(withFiles("NotValidForName"), /subjectAltName=IP:10.0.0.5$/);
});

Deno.test("describeConnectError() knows the ends of a connection", () => {
  const packed = (why: string) =>
    describeConnectError(`No connection established. Last error: ${why}. Resolution note: `);
  assert.equal(packed("Error: something new"), "something new");
  assert.equal(packed("something. new (2026-11-30T17:08:09.134Z)"), "something. new");
  assert.match(packed("Failed to connect (2026-11-30T17:08:09.134Z)"), /closed by the server/);
  assert.equal(describeConnectError("socket hang up"), "the connection was closed by the server");
  assert.equal(describeConnectError("getaddrinfo ENOTFOUND x"), "the host name cannot be resolved");
});
