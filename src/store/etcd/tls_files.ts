/**
 * The PEM files of TLS to etcd, read and checked, so that what cannot work is named at once.
 *
 * @module
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { describeError } from "../../errors.ts";
import type { TlsFiles } from "./options.ts";

/** PEM texts. */
export interface TlsMaterial {
  /** The only roots that are trusted; `undefined` for those that come with Deno. */
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** Where distributions keep the roots they trust; Go looks there, too (crypto/x509/root_linux.go). */
const SYSTEM_ROOTS = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/**
 * Reads the files as they are now. Without a CA file the roots of the system are trusted.
 *
 * @throws {Error} Naming the file that cannot be used and why; never its content.
 */
export async function readTlsFiles(files: TlsFiles): Promise<TlsMaterial> {
  const [ca, cert, key] = await Promise.all([
    files.caFile === undefined ? readSystemRoots() : readPem(files.caFile, "CA file", CERTIFICATE),
    files.certFile && readPem(files.certFile, "client certificate", CERTIFICATE),
    files.keyFile && readPem(files.keyFile, "client key", PRIVATE_KEY),
  ]);
  if (cert !== undefined && key !== undefined) checkPair(cert, key, files);
  return { ca, cert, key };
}

const CERTIFICATE = "CERTIFICATE";
const PRIVATE_KEY = "PRIVATE KEY";

async function readPem(path: string, what: string, label: string): Promise<string> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (cause) {
    throw new Error(describeError(cause, `Cannot read the ${what} ${path}`), { cause });
  }
  const refuse = (reason: string) => new Error(`Cannot use the ${what} ${path}: ${reason}`);
  if (!new RegExp(`-----BEGIN (?:[A-Z0-9]+ )*${label}-----`).test(text)) {
    throw refuse(`it holds no PEM block "${label}"`);
  }
  // Without its passphrase such a key would not be shown, and etcd would say that none came.
  if (label === PRIVATE_KEY && /BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED/.test(text)) {
    throw refuse(
      `it is encrypted, and nobody is there to ask for the passphrase; write it in clear with ` +
        `openssl pkey -in ${path} -out NEW_FILE, and let only root read that`,
    );
  }
  return text;
}

/** @throws {Error} If the key is not that of the certificate. */
function checkPair(cert: string, key: string, files: TlsFiles): void {
  const { certFile, keyFile } = files;
  let fits: boolean;
  try {
    fits = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch (cause) {
    throw new Error(
      `Cannot use the client certificate ${certFile} with the key ${keyFile}: one of them is damaged`,
      { cause },
    );
  }
  if (!fits) {
    throw new Error(
      `Cannot use the client certificate ${certFile}: ${keyFile} is the key of another one`,
    );
  }
}

async function readSystemRoots(): Promise<string | undefined> {
  const paths = [Deno.env.get("SSL_CERT_FILE"), ...SYSTEM_ROOTS];
  for (const path of paths) {
    if (!path) continue;
    try {
      return await readPem(path, "system's CA file", CERTIFICATE);
    } catch { /* Other distributions have it elsewhere. */ }
  }
  return undefined;
}

/** Whether two readings of the files gave the same. */
export function sameTlsMaterial(a: TlsMaterial, b: TlsMaterial): boolean {
  return a.cert === b.cert && a.key === b.key && a.ca === b.ca;
}
