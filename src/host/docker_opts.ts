/**
 * `flanneld docker-opts`: dockerd's options from subnet.env, as upstream's mk-docker-opts.sh writes
 * them. Options that dockerd would refuse are reported first.
 *
 * @module
 */
import { Libc } from "../../ffi/libc/open.ts";
import type { DockerOptions } from "../cli/docker_opts.ts";
import type { Environment } from "../cli/environment.ts";
import { OperatorError } from "../errors.ts";
import { ifPresent, writeFileAtomically } from "./atomic_file.ts";
import { parseDotenv } from "./subnet_env.ts";
import { Address, InterfaceAddress, Prefix } from "../net/mod.ts";

/** What the options are made of; `undefined` for files that are not there. */
interface Sources {
  readonly subnetEnv: string | undefined;
  /** dockerd's daemon.json. */
  readonly daemonConfig: string | undefined;
  /** The kernel's IPv4 routes, as in /proc/net/route. */
  readonly routes: string;
  readonly environment: Environment;
}

/** Key of daemon.json: the variable whose option dockerd refuses beside it. */
const CONFLICTS: Readonly<Record<string, string>> = {
  bip: "DOCKER_OPT_BIP",
  bridge: "DOCKER_OPT_BIP",
  "ip-masq": "DOCKER_OPT_IPMASQ",
  mtu: "DOCKER_OPT_MTU",
};

/** What is written, and what an operator should know of it. */
export interface RenderedOptions {
  readonly text: string;
  readonly warnings: readonly string[];
}

/**
 * Writes the environment file with dockerd's options; returns warnings.
 *
 * @throws {OperatorError} If there is no subnet, or dockerd would refuse the options.
 */
export async function writeDockerOptions(
  options: DockerOptions,
  environment: Environment,
): Promise<readonly string[]> {
  const { text, warnings } = renderDockerOptions(options, {
    subnetEnv: await ifPresent(Deno.readTextFile(options.subnetFile)),
    daemonConfig: await ifPresent(Deno.readTextFile(options.configFile)),
    routes: readRoutes(),
    environment,
  });
  await writeFileAtomically(options.output, text);
  return warnings;
}

/**
 * The text of the environment file. As in the script, a `DOCKER_OPT_…` of our own environment is an
 * option like the others, and options that the combined variable has there come first.
 */
export function renderDockerOptions(options: DockerOptions, sources: Sources): RenderedOptions {
  const { subnetFile, configFile, individual, combined, combinedKey, ipMasq } = options;
  const { environment } = sources;
  if (sources.subnetEnv === undefined) {
    throw new OperatorError(
      `Cannot write Docker's options: there is no ${subnetFile}; flanneld writes it as soon as it ` +
        `has a subnet, see "systemctl status flanneld"`,
    );
  }
  const flannel = parseDotenv(sources.subnetEnv);
  const subnet = flannel.get("FLANNEL_SUBNET");
  if (!subnet) {
    throw new OperatorError(
      `Cannot write Docker's options: ${subnetFile} has no FLANNEL_SUBNET; ` +
        "Docker needs an IPv4 subnet, see EnableIPv4 in the network config",
    );
  }
  const faulty = (name: string, mustBe: string) =>
    new OperatorError(
      `Cannot write Docker's options: ${name} in ${subnetFile} is ` +
        `${JSON.stringify(flannel.get(name))}; it must be ${mustBe}`,
    );
  const mtu = flannel.get("FLANNEL_MTU");
  if (mtu && !/^\d+$/.test(mtu)) throw faulty("FLANNEL_MTU", "a number");
  const masquerade = flannel.get("FLANNEL_IPMASQ");
  if (ipMasq && masquerade && !["true", "false"].includes(masquerade)) {
    throw faulty("FLANNEL_IPMASQ", "true or false");
  }
  const address = parseAddress(subnet);
  if (address === undefined) throw faulty("FLANNEL_SUBNET", "an address such as 10.24.7.1/24");

  const given = Object.entries(environment).filter(([name]) => /^DOCKER_OPT_./.test(name));
  const variables = new Map<string, string>(given as [string, string][]);
  variables.set("DOCKER_OPT_BIP", `--bip=${subnet}`);
  if (mtu) variables.set("DOCKER_OPT_MTU", `--mtu=${mtu}`);
  if (ipMasq && masquerade) {
    variables.set("DOCKER_OPT_IPMASQ", `--ip-masq=${masquerade === "false"}`);
  }
  const config = new Map<string, unknown>(Object.entries(parseJsonObject(sources.daemonConfig)));
  refuseConflicts(variables, configFile, config);
  refuseGateway(address, configFile, config);
  refuseRoute(address, sources.routes);
  const network = Prefix.tryParse(flannel.get("FLANNEL_NETWORK") ?? "");
  const warnings = findOverlaps(address, network, configFile, config);

  const sorted = [...variables].sort(([a], [b]) => a < b ? -1 : 1);
  const before = environment[combinedKey];
  const all = `${before ? `${before} ` : ""} ${sorted.map(([, option]) => option).join(" ")}`;
  const text = [...individual ? sorted : [], ...combined ? [[combinedKey, all] as const] : []]
    .map(([name, value]) => `${name}="${value}"\n`).join("");
  return { text, warnings };
}

/** dockerd does not start when an option is given both as a flag and in its file. */
function refuseConflicts(
  variables: ReadonlyMap<string, string>,
  file: string,
  config: ReadonlyMap<string, unknown>,
): void {
  const usual = (key: string) => key === "bridge" && config.get(key) === "";
  const conflicts = Object.entries(CONFLICTS)
    .filter(([key, name]) => config.has(key) && !usual(key) && variables.has(name))
    .map(([key, name]) => `"${key}" (against ${variables.get(name)})`);
  if (conflicts.length > 0) {
    throw new OperatorError(
      `Cannot give dockerd its options: ${file} has ${conflicts.join(", ")}, and dockerd does ` +
        "not start with both; remove them from the file",
    );
  }
}

/** dockerd does not start with a gateway that its bridge cannot reach. */
function refuseGateway(
  { prefix }: InterfaceAddress,
  file: string,
  config: ReadonlyMap<string, unknown>,
): void {
  const text = config.get("default-gateway");
  const gateway = typeof text === "string" ? Address.tryParse(text) : undefined;
  if (!gateway || prefix.contains(gateway)) return;
  throw new OperatorError(
    `Cannot give Docker the subnet ${prefix}: "default-gateway" in ${file}, ${gateway}, lies ` +
      "outside of it, and dockerd does not start with that; remove it from the file",
  );
}

/** What dockerd may accept, though containers then get other hosts' addresses, or none. */
function findOverlaps(
  { prefix }: InterfaceAddress,
  network: Prefix | undefined,
  file: string,
  config: ReadonlyMap<string, unknown>,
): string[] {
  const parse = (text: unknown) => typeof text === "string" ? Prefix.tryParse(text) : undefined;
  const fixed = parse(config.get("fixed-cidr"));
  const pools = config.get("default-address-pools");
  const inNetwork = (Array.isArray(pools) ? pools : [])
    .map((pool) => parse(pool?.base))
    .filter((base) => base && network?.overlaps(base));
  return [
    ...fixed && !fixed.overlaps(prefix)
      ? [
        `"fixed-cidr" in ${file}, ${fixed}, lies outside of this host's subnet ${prefix}: dockerd ` +
        "ignores it or does not start; remove it from the file",
      ]
      : [],
    ...inNetwork.map((base) =>
      `"default-address-pools" in ${file} has ${base}, which overlaps the network ${network} of ` +
      "flannel: Docker networks would take addresses of other hosts' containers; choose another pool"
    ),
  ];
}

/** A JSON object; empty for anything else, since dockerd reports best what is wrong with it. */
function parseJsonObject(text = ""): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

/** Docker's bridge gets no packets where a route leads the subnet elsewhere. */
function refuseRoute({ prefix }: InterfaceAddress, routes: string): void {
  for (const line of routes.split("\n").slice(1)) {
    const [link, destination, gateway, , , , , mask] = line.split("\t").map((each) => each.trim());
    if (mask === undefined || gateway === "00000000") continue;
    const route = `${dotted(destination!)}/${
      parseInt(mask, 16).toString(2).replaceAll("0", "").length
    }`;
    if (route !== String(prefix)) continue;
    throw new OperatorError(
      `Cannot give Docker the subnet ${prefix}: the route ${route} via ${dotted(gateway!)} dev ` +
        `${link} leads it elsewhere; remove that route`,
    );
  }
}

/** An address as /proc/net/route has it, in the byte order of this host: little-endian. */
function dotted(hex: string): string {
  return hex.match(/../g)!.reverse().map((byte) => parseInt(byte, 16)).join(".");
}

function parseAddress(text: string): InterfaceAddress | undefined {
  try {
    const address = InterfaceAddress.parse(text);
    return address.prefix.family === 4 ? address : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function readRoutes(): string {
  using libc = Libc.open();
  return libc.readKernelFile("/proc/net/route");
}
