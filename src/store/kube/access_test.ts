import assert from "node:assert/strict";
import { type AccessOptions, readAccess } from "./access.ts";

/** Has `body` write files into a folder of its own. */
async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("readAccess() takes the pod's service account, also for a URL that is given alone", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/token`, "secret\n");
    await Deno.writeTextFile(`${folder}/namespace`, "kube-flannel");
    const environment = { KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "443" };
    const options: AccessOptions = { environment, serviceAccountFolder: folder };
    const found = await readAccess(options);
    assert.equal(found.server, "https://[fd00::1]");
    assert.deepEqual([found.token, found.namespace, found.ca], [
      "secret",
      "kube-flannel",
      undefined,
    ]);
    const given = await readAccess({ ...options, apiUrl: "https://api:6443/" });
    assert.deepEqual([given.server, given.token], ["https://api:6443", "secret"]);
    await Deno.remove(`${folder}/token`);
    await assert.rejects(readAccess(options), Deno.errors.NotFound);
    assert.equal((await readAccess({ ...options, apiUrl: "http://api" })).token, undefined);
    await assert.rejects(
      readAccess({ environment: {} }),
      /give --kubeconfig-file or --kube-api-url/,
    );
  });
});

Deno.test("readAccess() reads a kubeconfig, in YAML and JSON, whose paths start at its folder", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/kubeconfig`;
    const options: AccessOptions = { environment: {}, kubeconfigFile: file };
    await Deno.writeTextFile(`${folder}/ca.pem`, "the CA");
    await Deno.writeTextFile(`${folder}/t`, " of a file \n");
    await Deno.writeTextFile(
      file,
      `current-context: b
contexts: [{name: a, context: {cluster: x}}, {name: b, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://s:6443", certificate-authority: ca.pem}}]
users: [{name: u, user: {token: inline, tokenFile: t, client-certificate-data: ${btoa("C")},
  client-certificate: nowhere, client-key-data: ${btoa("K")}}}]`,
    );
    const { namespace: _, proxy: __, ...found } = await readAccess(options);
    assert.deepEqual(found, {
      server: "https://s:6443",
      ca: "the CA",
      certificate: "C",
      key: "K",
      token: "of a file",
    });
    assert.equal((await readAccess({ ...options, apiUrl: "https://o" })).server, "https://o");
    const json = {
      "current-context": "a",
      contexts: [{ name: "a", context: { cluster: "c", user: "u", namespace: "n" } }],
      clusters: [{ name: "c", cluster: { server: "s:1" } }],
      users: [{ name: "u", user: { token: "t" } }],
    };
    await Deno.writeTextFile(file, JSON.stringify(json));
    const other = await readAccess(options);
    assert.deepEqual([other.server, other.token, other.namespace], ["http://s:1", "t", "n"]);
  });
});

Deno.test("readAccess() says what is wrong with a kubeconfig, and shows nothing of it", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/kubeconfig`;
    const refusal = async (text: string): Promise<string> => {
      await Deno.writeTextFile(file, text);
      try {
        await readAccess({ environment: {}, kubeconfigFile: file });
      } catch (error) {
        return (error as Error).message;
      }
      throw new Error("It is taken");
    };
    const config = (cluster: string, user: string) =>
      `current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://s", ${cluster}}}]
users: [{name: u, user: {${user}}}]`;
    const broken = await refusal("users:\n- token: canary\n  bad: [canary\n");
    assert.match(broken, /it is not YAML: .* in line \d/);
    assert.doesNotMatch(broken, /canary/);
    assert.match(await refusal("a: 1"), /current-context is missing/);
    assert.match(await refusal("current-context: x"), /there is no context "x"/);
    assert.match(await refusal("clusters: 7\ncurrent-context: x"), /clusters must be Array/);
    assert.match(await refusal(config("insecure-skip-tls-verify: true", "")), /insecure-skip/);
    assert.match(await refusal(config("", "exec: {command: x}")), /exec: give a token file/);
    assert.match(await refusal(config("", "client-key-data: QQ==")), /given together/);
    assert.match(await refusal(config("certificate-authority-data: '*'", "")), /not base64/);
  });
});
