/** Reads a kubeconfig. @module */
import { dirname, isAbsolute, join } from "node:path";
import * as v from "valibot";
import { ConfigError } from "../../errors.ts";

/** What a kubeconfig says of the current context; files are not read yet. */
export interface Kubeconfig {
  readonly server: string;
  readonly namespace: string | undefined;
  readonly proxy: string | undefined;
  readonly ca: TextOrFile;
  readonly certificate: TextOrFile;
  readonly key: TextOrFile;
  readonly token: TextOrFile;
}

/** A text, a file that holds it, or neither. */
export type TextOrFile = { readonly text: string } | { readonly file: string } | undefined;

const text = v.optional(v.string(), "");
const cluster = v.object({
  server: text,
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": v.optional(v.boolean(), false),
  "tls-server-name": text,
  "proxy-url": text,
});
const user = v.object({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  username: text,
  as: text,
  exec: v.optional(v.unknown()),
  "auth-provider": v.optional(v.unknown()),
});
const named = <T extends v.GenericSchema>(key: string, schema: T) =>
  v.optional(v.array(v.object({ name: v.string(), [key]: v.optional(v.nullable(schema)) })), []);
const kubeconfig = v.object({
  "current-context": text,
  clusters: named("cluster", cluster),
  users: named("user", user),
  contexts: named("context", v.object({ cluster: text, user: text, namespace: text })),
});

/**
 * Reads the kubeconfig `file` holds, YAML or JSON. Paths in it start at its folder.
 *
 * @throws {ConfigError} If it is none, or asks for what is not supported. No text of it is shown.
 */
export async function parseKubeconfig(content: string, file: string): Promise<Kubeconfig> {
  const fail = (...faults: string[]) => new ConfigError(`kubeconfig ${file}`, faults);
  const parsed = v.safeParse(kubeconfig, await parseYaml(content, fail));
  if (!parsed.success) {
    throw fail(
      ...parsed.issues.slice(0, 3).map((issue) => {
        return `${v.getDotPath(issue) ?? "it"} must be ${issue.expected ?? "something else"}`;
      }),
    );
  }
  const { clusters, users, contexts, "current-context": current } = parsed.output;
  const context = contexts.find(({ name }) => name === current)?.["context"];
  if (context === undefined || context === null) {
    throw fail(current === "" ? "current-context is missing" : `there is no context "${current}"`);
  }
  const { cluster: clusterName, user: userName, namespace } = context as Record<string, string>;
  const where = clusters.find(({ name }) => name === clusterName)?.["cluster"] as
    | v.InferOutput<typeof cluster>
    | undefined;
  const who = users.find(({ name }) => name === userName)?.["user"] as
    | v.InferOutput<typeof user>
    | undefined;
  if (!where) throw fail(`there is no cluster "${clusterName}"`);
  const faults = unsupported(where, who);
  if (faults.length > 0) throw fail(...faults);
  const at = (path: string) => isAbsolute(path) ? path : join(dirname(file), path);
  const either = (data: string | undefined, path: string | undefined): TextOrFile => {
    if (data) return { text: decode(data, fail) };
    return path ? { file: at(path) } : undefined;
  };
  return {
    server: where.server,
    namespace: namespace || undefined,
    proxy: where["proxy-url"] || undefined,
    ca: either(where["certificate-authority-data"], where["certificate-authority"]),
    certificate: either(who?.["client-certificate-data"], who?.["client-certificate"]),
    key: either(who?.["client-key-data"], who?.["client-key"]),
    token: who?.tokenFile
      ? { file: at(who.tokenFile) }
      : who?.token
      ? { text: who.token }
      : undefined,
  };
}

function unsupported(
  where: v.InferOutput<typeof cluster>,
  who: v.InferOutput<typeof user> | undefined,
): string[] {
  const faults: [unknown, string][] = [
    [where["insecure-skip-tls-verify"], "insecure-skip-tls-verify: give certificate-authority"],
    [where["tls-server-name"], "tls-server-name: name the server as its certificate does"],
    [who?.exec, "exec: give a token file or a client certificate"],
    [who?.["auth-provider"], "auth-provider: give a token file or a client certificate"],
    [who?.as, "as: give the rights to the user itself"],
    [who?.username, "username: give a token file or a client certificate"],
  ];
  return faults.filter(([given]) => Boolean(given))
    .map(([, advice]) => `it uses what is not supported, ${advice}`);
}

function decode(data: string, fail: (fault: string) => Error): string {
  try {
    return new TextDecoder().decode(Uint8Array.fromBase64(data));
  } catch {
    throw fail("a value that ends in -data is not base64");
  }
}

async function parseYaml(content: string, fail: (fault: string) => Error): Promise<unknown> {
  try {
    return JSON.parse(content);
  } catch { /* YAML, as most are */ }
  const { load } = await import("js-yaml");
  try {
    return load(content);
  } catch (error) {
    // Its message shows the lines around, in which there may be a token.
    const { reason, mark } = error as { reason?: string; mark?: { line?: number } };
    const line = mark?.line === undefined ? "" : ` in line ${mark.line + 1}`;
    throw fail(`it is not YAML: ${reason ?? "it cannot be read"}${line}`);
  }
}
