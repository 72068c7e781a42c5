/**
 * What the tests of the kernel backends share: networks, and a host's kernel objects as text.
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  describeLosses,
  type Host,
  type Lab,
  type LabOptions,
  openLab,
  type UnderlayFamilies,
} from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { HEALTH_FLAGS, startReady } from "./support.ts";

/** Families of a network and of the underlay below it. */
export type Families = UnderlayFamilies;

export const NETWORK_V4 = "10.24.0.0/16";
export const NETWORK_V6 = "fd00:24::/48";

/** A network config of these families. */
export function networkConfig(
  families: Families,
  backend: Readonly<Record<string, unknown>>,
  more: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  return {
    ...(families === "v6" ? { EnableIPv4: false } : { Network: NETWORK_V4 }),
    ...(families === "v4" ? {} : { EnableIPv6: true, IPv6Network: NETWORK_V6 }),
    ...more,
    Backend: backend,
  };
}

/** The names of the VXLAN devices that a host has. */
export function vxlanLinks(families: Families, vni = 1): string[] {
  return {
    v4: [`flannel.${vni}`],
    v6: [`flannel-v6.${vni}`],
    dual: [`flannel.${vni}`, `flannel-v6.${vni}`],
  }[families];
}

/** A lab on Ethernet segments, with `config` in its etcd. */
export async function openKernelLab(
  options: Omit<LabOptions, "cloud"> & { readonly config: unknown },
): Promise<Lab> {
  const lab = await openLab({ topology: "l2", ...options });
  try {
    await lab.writeConfig(options.config, options);
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/** Starts the daemons of `hosts` and, where there are none yet, a pod on each. */
export async function startCluster(
  lab: Lab,
  options: {
    readonly signal: AbortSignal;
    readonly hosts?: readonly Host[];
    readonly flags?: readonly string[];
  },
): Promise<void> {
  const { signal, hosts = lab.hosts, flags = [] } = options;
  await Promise.all(
    hosts.map((host) => startReady(host, { signal, flags: [...HEALTH_FLAGS, ...flags] })),
  );
  await Promise.all(hosts.map((host) => host.ensurePods(1, { signal })));
}

/** Checks that every pod gets an answer from every other, at each address. */
export async function assertPodsPing(
  lab: Lab,
  options: { readonly signal: AbortSignal; readonly title?: string; readonly seconds?: number },
): Promise<void> {
  const results = await lab.pingPods({ signal: options.signal, seconds: options.seconds ?? 5 });
  const logs = lab.hosts.map((host) => host.daemonLog()).filter((each) => each !== "").join("\n");
  assert.equal(describeLosses(results), "", `${options.title ?? "pods"}:\n${logs}`);
}

/**
 * Every link, address, route of table main, permanent neighbour and forwarding entry of a host,
 * one line each, sorted. Left out: what the kernel makes by itself (link-local addresses and their
 * routes, entries that it learned, the bridges' own), indexes and counters.
 */
export async function kernelState(
  host: Pick<Host, "namespace">,
  options: { readonly signal: AbortSignal },
): Promise<string[]> {
  const list = async (program: string, ...args: string[]) =>
    // deno-lint-ignore no-explicit-any -- the output of iproute2
    JSON.parse(await host.namespace.run(program, ["-j", ...args], options) || "[]") as any[];
  const [links, addresses, neighbors, fdb, routes, routesV6] = await Promise.all([
    list("ip", "-details", "link", "show"),
    list("ip", "address", "show"),
    list("ip", "neighbor", "show", "nud", "permanent"),
    list("bridge", "fdb", "show"),
    list("ip", "-details", "route", "show", "table", "main"),
    list("ip", "-details", "-6", "route", "show", "table", "main"),
  ]);
  const lines: string[] = [];
  for (const { ifname, mtu, address, flags, linkinfo, ifalias } of links) {
    const data = linkinfo?.info_kind === "vxlan" ? ` ${JSON.stringify(linkinfo.info_data)}` : "";
    const up = flags.includes("UP") ? "up" : "down";
    const alias = ifalias === undefined ? "" : ` alias ${ifalias}`;
    lines.push(
      `link ${ifname} ${up} mtu ${mtu} ${address} ${linkinfo?.info_kind ?? ""}${data}${alias}`,
    );
  }
  for (const { ifname, addr_info } of addresses) {
    for (const { local, prefixlen, scope } of addr_info) {
      if (scope !== "link") lines.push(`address ${local}/${prefixlen} dev ${ifname}`);
    }
  }
  for (const { dst, dev, lladdr } of neighbors) lines.push(`neighbor ${dst} dev ${dev} ${lladdr}`);
  for (const { mac, ifname, dst, flags, state } of fdb) {
    if (dst !== undefined && flags.includes("self")) {
      lines.push(`fdb ${mac} dev ${ifname} dst ${dst} ${state}`);
    }
  }
  for (const { type, dst, gateway, dev, protocol, metric, flags } of [...routes, ...routesV6]) {
    if (dst.startsWith("fe80:") || dst === "anycast" || type === "multicast") continue;
    lines.push(
      `route ${type ?? "unicast"} ${dst} via ${gateway} dev ${dev} proto ${protocol} ` +
        `metric ${metric} ${flags.filter((flag: string) => flag === "onlink")}`,
    );
  }
  return lines.sort();
}

/**
 * The lines of {@linkcode kernelState} about flannel's own links, networks and tunnels, without the
 * routes that the kernel adds to addresses.
 */
export function flannelLines(state: readonly string[]): string[] {
  return state.filter((line) => !/^route .* proto kernel /.test(line)).filter((line) =>
    /flannel/.test(line) || (/^route/.test(line) && /10\.24\.|fd00:24:/.test(line) &&
      !/ dev cni0 /.test(line))
  );
}

/** Waits until the kernel's state of `host` is `expected`; returns the milliseconds it took. */
export async function untilState(
  host: Host,
  expected: readonly string[],
  options: {
    readonly signal: AbortSignal;
    readonly title: string;
    readonly timeoutMs?: number;
    readonly since?: number;
  },
): Promise<number> {
  const since = options.since ?? performance.now();
  let last: string[] = [];
  try {
    await eventually(async () => {
      last = await kernelState(host, options);
      return last.join("\n") === expected.join("\n");
    }, { ...options, timeoutMs: options.timeoutMs ?? 15_000, intervalMs: 20 });
  } catch (error) {
    if (options.signal.aborted) throw error;
    // The difference, as assert prints it, tells more than the time.
    assert.deepEqual(last, [...expected], `${options.title}:\n${host.daemonLog()}`);
    throw error;
  }
  return performance.now() - since;
}

/** Prints one line of a test's measurements. */
export function note(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`    ${text}\n`));
}
