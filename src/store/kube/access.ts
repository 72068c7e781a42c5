/**
 * Where the Kubernetes API is, and as whom to speak to it: in a pod the service account's files,
 * else a kubeconfig. All files are read again while the daemon runs, since they change: a token
 * each hour.
 *
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { parseKubeconfig, type TextOrFile } from "./kubeconfig.ts";

/** How to reach the API at this moment. */
export interface Access {
  /** Without a slash at its end. */
  readonly server: string;
  readonly namespace: string | undefined;
  readonly proxy: string | undefined;
  readonly ca: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  readonly token: string | undefined;
}

/** Options of {@linkcode readAccess}. */
export interface AccessOptions {
  /** `--kube-api-url`. */
  readonly apiUrl?: string | undefined;
  /** `--kubeconfig-file`. */
  readonly kubeconfigFile?: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where a pod finds its service account. */
  readonly serviceAccountFolder?: string;
}

/** Where the kubelet mounts a service account. */
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * Reads how to reach the API.
 *
 * @throws {ConfigError} If nothing says where the API is, or what says so is wrong.
 * @throws If a file cannot be read.
 */
export async function readAccess(options: AccessOptions): Promise<Access> {
  const { kubeconfigFile, apiUrl } = options;
  if (kubeconfigFile) return await readKubeconfig(kubeconfigFile, apiUrl);
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = options.environment;
  if (!apiUrl && (!host || !port)) {
    throw new ConfigError("the Kubernetes API", [
      "nothing says where it is: outside of a pod, give --kubeconfig-file or --kube-api-url " +
      "(in a pod, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT say it)",
    ]);
  }
  const folder = options.serviceAccountFolder ?? SERVICE_ACCOUNT;
  // Upstream takes no token with --kube-api-url; a pod that needs the URL needs the token, too.
  const isOptional = Boolean(apiUrl);
  return {
    server: serverOf(apiUrl || `https://${host!.includes(":") ? `[${host}]` : host}:${port}`),
    namespace: await readText({ file: `${folder}/namespace` }, true),
    proxy: undefined,
    ca: await readText({ file: `${folder}/ca.crt` }, true),
    certificate: undefined,
    key: undefined,
    token: await readText({ file: `${folder}/token` }, isOptional),
  };
}

async function readKubeconfig(file: string, apiUrl: string | undefined): Promise<Access> {
  const config = await parseKubeconfig(await Deno.readTextFile(file), file);
  const [ca, certificate, key, token] = await Promise.all(
    [config.ca, config.certificate, config.key, config.token].map((each) => readText(each)),
  );
  if ((certificate === undefined) !== (key === undefined)) {
    throw new ConfigError(`kubeconfig ${file}`, [
      "client-certificate and client-key are given together, or neither",
    ]);
  }
  const server = apiUrl || config.server;
  if (server === "") throw new ConfigError(`kubeconfig ${file}`, ["server is missing"]);
  const { namespace, proxy } = config;
  return { server: serverOf(server), namespace, proxy, ca, certificate, key, token };
}

/** The text; `undefined` for none, and for a file that is not there if that is allowed. */
async function readText(source: TextOrFile, isOptional = false): Promise<string | undefined> {
  if (source === undefined) return undefined;
  if ("text" in source) return source.text.trim();
  try {
    const text = (await Deno.readTextFile(source.file)).trim();
    if (text !== "") return text;
    if (isOptional) return undefined;
    throw new Error(`${source.file} is empty`);
  } catch (error) {
    if (isOptional && error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function serverOf(url: string): string {
  const parsed = URL.parse(url.includes("://") ? url : `http://${url}`);
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    throw new ConfigError("the Kubernetes API", ["its server is not a URL of http or https"]);
  }
  return `${parsed.origin}${parsed.pathname.replace(/\/+$/, "")}`;
}
