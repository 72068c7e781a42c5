/**
 * The CNI plug-in's config and what it becomes for the delegate, byte for byte as upstream's plug-in
 * renders it.
 *
 * @module
 */
import { parseDotenv } from "../host/subnet_env.ts";
import { InterfaceAddress } from "../net/mod.ts";
import { isObject, type JsonObject } from "../util/json_object.ts";
import { CniFailure, CODES } from "./failure.ts";

/** The config of the plug-in `flannel`. */
export interface NetConf {
  /** As given; `0.1.0` where it is left out. */
  readonly cniVersion: string;
  /** What the config says of its version, for the delegate. */
  readonly givenVersion: string | undefined;
  readonly name: string;
  readonly subnetFile: string;
  readonly dataDir: string;
  readonly delegate: JsonObject;
  readonly ipam: JsonObject;
  readonly runtimeConfig: JsonObject | undefined;
  /** Result of the ADD, given to CHECK. */
  readonly prevResult: unknown;
  /** The attachments that are alive, given to GC. */
  readonly attachments: readonly unknown[] | undefined;
}

/** What the plug-in reads from subnet.env; prefixes as text, IPv4 first. */
export interface PodNetwork {
  readonly networks: readonly string[];
  readonly subnets: readonly string[];
  readonly mtuBytes: number;
  /** Whether flanneld masquerades. */
  readonly masquerade: boolean;
}

const DEFAULTS = { subnetFile: "/run/flannel/subnet.env", dataDir: "/var/lib/cni/flannel" };

/** What names of networks and container IDs look like; neither can leave its directory. */
export const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

function isList(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

/**
 * Reads the config from standard input, with names in any case and `null` for absent, as Go does.
 *
 * @throws {CniFailure} If it is none.
 */
export function parseNetConf(text: string): NetConf {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new CniFailure(CODES.decode, "Cannot read the network config: it is not JSON");
  }
  if (!isObject(json)) {
    throw new CniFailure(CODES.decode, "Cannot read the network config: it must be an object");
  }
  const members = new Map(
    Object.entries(json).filter(([, value]) => value !== null)
      .map(([key, value]) => [key.toLowerCase(), value]),
  );
  function member<T>(key: string, what: string, is: (value: unknown) => value is T) {
    const value = members.get(key.toLowerCase());
    if (value === undefined || is(value)) return value as T | undefined;
    throw new CniFailure(
      CODES.decode,
      `Cannot read the network config: "${key}" must be ${what}`,
    );
  }
  const string = (key: string) => member(key, "a string", (value) => typeof value === "string");
  const object = (key: string) => member(key, "an object", isObject);
  const name = string("name") ?? "";
  if (!NAME.test(name)) {
    throw new CniFailure(
      CODES.badConfig,
      `Cannot use the network config: "name" must be letters, digits, "_", "." and "-"`,
    );
  }
  const givenVersion = string("cniVersion") || undefined;
  return {
    cniVersion: givenVersion ?? "0.1.0",
    givenVersion,
    name,
    subnetFile: string("subnetFile") ?? DEFAULTS.subnetFile,
    dataDir: string("dataDir") ?? DEFAULTS.dataDir,
    delegate: object("delegate") ?? {},
    ipam: object("ipam") ?? {},
    runtimeConfig: object("runtimeConfig"),
    prevResult: members.get("prevresult"),
    attachments: member("cni.dev/valid-attachments", "a list", isList),
  };
}

/**
 * What subnet.env says of the pods' network.
 *
 * @throws {Error} If it lacks something, or a value is bad.
 */
export function parsePodNetwork(text: string): PodNetwork {
  const variables = parseDotenv(text);
  const missing: string[] = [];
  const need = (name: string) => {
    const value = variables.get(name);
    if (value === undefined) missing.push(name);
    return value ?? "";
  };
  const prefixes = (suffix: string): string[] => {
    const names = [`FLANNEL_${suffix}`, `FLANNEL_IPV6_${suffix}`];
    const given = names.flatMap((name) => variables.get(name)?.split(",") ?? []);
    if (given.length === 0) missing.push(...names);
    return [...new Set(given.map((each) => `${InterfaceAddress.parse(each).prefix}`))];
  };
  const [networks, subnets] = [prefixes("NETWORK"), prefixes("SUBNET")];
  const [mtu, masquerade] = [need("FLANNEL_MTU"), need("FLANNEL_IPMASQ") === "true"];
  if (missing.length > 0) throw new Error(`it lacks ${missing.join(", ")}`);
  if (!/^\d{1,9}$/.test(mtu)) throw new Error("FLANNEL_MTU is no number");
  return { networks, subnets, mtuBytes: Number(mtu), masquerade };
}

/**
 * The delegate's config: what the user gave, completed with the pods' network.
 *
 * @throws {CniFailure} If the user gave what is ours to set.
 */
export function renderDelegate(
  conf: Pick<NetConf, "name" | "givenVersion" | "delegate" | "ipam" | "runtimeConfig">,
  { networks, subnets, mtuBytes, masquerade }: PodNetwork,
): JsonObject & { readonly type: string } {
  const { delegate, ipam, runtimeConfig, givenVersion } = conf;
  const { type = "bridge" } = delegate;
  if (typeof type !== "string") {
    throw new CniFailure(CODES.badConfig, `Cannot use "delegate": its "type" must be a string`);
  }
  for (const key of ["name", "ipam"]) {
    if (key in delegate) {
      throw new CniFailure(
        CODES.badConfig,
        `Cannot use "delegate": it must not have "${key}", which flannel sets`,
      );
    }
  }
  const { routes = [] } = ipam;
  if (!Array.isArray(routes) || !routes.every(isObject)) {
    throw new CniFailure(CODES.badConfig, `Cannot use "ipam": its "routes" must be objects`);
  }
  return {
    ipMasq: !masquerade,
    mtu: mtuBytes,
    ...(type === "bridge" ? { isGateway: true } : {}),
    ...delegate,
    type,
    name: conf.name,
    ...(runtimeConfig ? { runtimeConfig } : {}),
    ...(givenVersion === undefined ? {} : { cniVersion: givenVersion }),
    ipam: {
      type: "host-local",
      ...ipam,
      ranges: subnets.map((subnet) => [{ subnet }]),
      routes: [...routes, ...networks.map((dst) => ({ dst }))],
    },
  };
}

/** JSON with sorted keys, as Go prints maps. */
export function renderJson(value: unknown): string {
  return JSON.stringify(
    value,
    (_key, each) =>
      isObject(each)
        ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => a < b ? -1 : 1))
        : each,
  );
}
