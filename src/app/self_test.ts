/**
 * `flanneld self-test`: loads and uses each part of the program that a run loads only when it needs
 * it, so that a build that lost one is found before a host needs it. Touches nothing outside the
 * process but loopback.
 *
 * @module
 */
import * as v from "valibot";
import { loadGoRegex } from "../cli/go_syntax.ts";
import { RateLimiter } from "../cloud/rate_limiter.ts";
import { describeError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { abortable } from "../util/abortable.ts";
import { deadline } from "../util/time.ts";
import { LIBNL_SONAMES, loadCarriedLibraries } from "../host/carried_libraries.ts";

/** How long a part may take; all do with a fraction of it. */
const LIMIT_MS = 15_000;

interface Part {
  readonly name: string;
  /** @throws If the part is missing or does not work; returns a word about it. */
  use(options: { signal: AbortSignal }): Promise<string | void>;
}

const PARTS: readonly Part[] = [
  { name: "etcd client", use: useEtcd },
  { name: "Alibaba Cloud client", use: useCloud },
  { name: "packet worker", use: useWorker },
  { name: "libnl", use: useLibnl },
  { name: "regular expressions", use: useRegex },
];

/** Options of {@linkcode selfTest}. */
export interface SelfTestOptions {
  /** Told the outcome of each part, one line each. */
  readonly say: (line: string) => void;
}

/** Uses every part; returns whether all of them work. */
export async function selfTest({ say }: SelfTestOptions): Promise<boolean> {
  let passed = true;
  for (const { name, use } of PARTS) {
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

/** One call, to a service of our own: loaded in the wrong way it gets no answer. */
async function useCloud({ signal }: { signal: AbortSignal }): Promise<void> {
  const { openRpc } = await import("../cloud/ali/rpc.ts");
  const reply = { RequestId: "self-test" };
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => Response.json(reply),
  );
  const credentials = { accessKeyId: new Secret("self-test"), accessKeySecret: new Secret("none") };
  await using rpc = await openRpc({
    service: "vpc",
    endpoint: `http://127.0.0.1:${server.addr.port}`,
    apiVersion: "2016-04-28",
    credentials: { get: () => Promise.resolve(credentials), invalidate: () => false },
    limiter: new RateLimiter({ burst: 1, perSecond: 1 }),
  });
  const schema = v.object({ RequestId: v.literal(reply.RequestId) });
  await rpc.call("DescribeRegions", {}, schema, { signal });
}

/** Starts the Worker of the packet path and waits until it says which descriptors it uses. */
async function useWorker({ signal }: { signal: AbortSignal }): Promise<void> {
  const { openTunnel } = await import("../dataplane/tunnel.ts");
  const { promise: fault, reject } = Promise.withResolvers<never>();
  await using tunnel = openTunnel({
    allowAnySource: false,
    natTraversal: false,
    families: [],
    onNotice() {},
    onDeviceGone() {},
    onFault: reject,
  });
  fault.catch(() => {/* it may come after the race below */});
  tunnel.start({ tcp: false, udp: false });
  const none = { tun: undefined, socketV4: undefined, socketV6: undefined };
  await Promise.race([tunnel.setDescriptors(none, { signal }), fault]);
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
