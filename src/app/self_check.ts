/**
 * `flanneld self-test`: loads and uses each part of the program that a run loads only when it needs
 * it, so that a build that lost one is found before a host needs it. Touches nothing outside the
 * process but loopback.
 *
 * @module
 */
import { loadGoRegex } from "../cli/go_syntax.ts";
import { describeError } from "../errors.ts";
import type { BackendEntry, SelfTest } from "../runtime/runtime.ts";
import { abortable } from "../util/abortable.ts";
import { deadline } from "../util/time.ts";
import { LIBNL_SONAMES, loadCarriedLibraries } from "../host/carried_libraries.ts";

/** How long a part may take; all do with a fraction of it. */
const LIMIT_MS = 15_000;

/** What a run may need; each backend has its own. */
const parts = (backends: readonly BackendEntry[]): readonly SelfTest[] => [
  { name: "etcd client", use: useEtcd },
  ...backends.flatMap(({ selfTest }) => selfTest ?? []),
  { name: "libnl", use: useLibnl },
  { name: "regular expressions", use: useRegex },
  { name: "kubeconfig", use: useKubeconfig },
];

/** Options of {@linkcode selfTest}. */
export interface SelfTestOptions {
  readonly backends: readonly BackendEntry[];
  /** Told the outcome of each part, one line each. */
  readonly say: (line: string) => void;
}

/** Uses every part; returns whether all of them work. */
export async function selfTest({ backends, say }: SelfTestOptions): Promise<boolean> {
  let passed = true;
  for (const { name, use } of parts(backends)) {
    using limit = deadline(LIMIT_MS, new AbortController());
    try {
      const remark = await abortable(use(limit), limit);
      say(`ok: ${name}${remark ? ` (${remark})` : ""}`);
    } catch (error) {
      passed = false;
      say(`failed: ${name}: ${describeError(error)}`);
    }
  }
  return passed;
}

/** Its .proto files are read when it is loaded, and compiled into the client's methods. */
async function useEtcd(): Promise<void> {
  const { loadEtcd3 } = await import("../store/etcd/connection.ts");
  const { Etcd3 } = await loadEtcd3();
  const client = new Etcd3({ hosts: "http://127.0.0.1:1" });
  try {
    if (typeof client.kv.range !== "function") throw new Error("it knows no calls");
  } finally {
    client.close();
  }
}

async function useRegex(): Promise<void> {
  const compile = await loadGoRegex();
  if (!compile("^eth[[:digit:]]$").test("eth0")) throw new Error("eth0 does not match");
}

/** A kubeconfig is YAML mostly, whose parser is loaded for one alone. */
async function useKubeconfig(): Promise<void> {
  const { parseKubeconfig } = await import("../store/kube/kubeconfig.ts");
  const text = "current-context: a\nclusters: [{name: a, cluster: {server: 'https://a'}}]\n" +
    "contexts:\n- name: a\n  context: {cluster: a}\n";
  const { server } = await parseKubeconfig(text, "of the self-test");
  if (server !== "https://a") throw new Error("its server is another one");
}

/** Lists links through libnl: an executable's through the one it carries, whatever the host has. */
async function useLibnl(options: { signal: AbortSignal }): Promise<string> {
  const carried = loadCarriedLibraries({ prefer: "carried" });
  const lost = LIBNL_SONAMES.filter((name) => !carried.includes(name));
  if (Deno.build.standalone && lost.length > 0) {
    throw new Error(`the executable does not carry ${lost.join(", ")}, or it does not load`);
  }
  const { openNetlink } = await import("../kernel/netlink/rtnetlink.ts");
  await using netlink = openNetlink();
  await netlink.listLinks(options);
  return lost.length > 0 ? "the system's" : "carried";
}
