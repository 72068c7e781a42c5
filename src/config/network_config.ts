/** The network config: its schema, defaults and checks, as upstream reads it. @module */
import { ConfigError, describeError } from "../errors.ts";
import { type Address, addressBits, type Family, Prefix } from "../net/mod.ts";
import { rememberSecret } from "../secret.ts";
import { isObject } from "../util/json_object.ts";
import { present } from "../util/present.ts";
import { FieldReader, kindOf, MAX_SECRET_CHARS } from "./fields.ts";
import { parseJson, place } from "./json.ts";

/** One family's share of the network config. */
export interface FamilyConfig {
  /** The whole network. */
  readonly network: Prefix;
  /** Length of each host's subnet. */
  readonly subnetLength: number;
  /** First and last subnet base that may be handed out. */
  readonly subnetMin: Address;
  readonly subnetMax: Address;
}

/** The network config; at least one family is present. */
export interface NetworkConfig {
  readonly ipv4?: FamilyConfig;
  readonly ipv6?: FamilyConfig;
  readonly enableNFTables: boolean;
  readonly backend: {
    /** Lower case. */
    readonly type: string;
    /** The raw `Backend` object, with `Type`. Holds secrets: never log it. */
    readonly options: Readonly<Record<string, unknown>>;
  };
}

/** What {@linkcode parseNetworkConfig} found. */
export interface ParsedNetworkConfig {
  readonly config: NetworkConfig;
  /** What has no effect or is likely meant otherwise, one sentence each. */
  readonly warnings: readonly string[];
}

export interface ParseNetworkConfigOptions {
  /**
   * Reads the backend's own keys and whether it fits the families, so that all faults are reported
   * together: returns warnings, throws {@linkcode ConfigError}. A family with faults is left out.
   */
  readonly readBackend?: (
    backend: NetworkConfig["backend"],
    families: Pick<NetworkConfig, "ipv4" | "ipv6">,
  ) => readonly string[];
}

const SUBJECT = "network config";

/**
 * The network config in the JSON `text` of `<prefix>/config` or `net-conf.json`. Names match
 * without case and the last of several counts, as in upstream flannel; its checks and messages are
 * kept, and more is checked than there (families, types, first subnet not after the last).
 *
 * @throws {ConfigError} With every fault. No fault quotes a text of the backend's options.
 */
export function parseNetworkConfig(
  text: string,
  options: ParseNetworkConfigOptions = {},
): ParsedNetworkConfig {
  const { value, duplicates } = parseObject(text);
  const fields = new FieldReader(value, { subject: SUBJECT, path: "" });
  const replaced = text.indexOf("\ufffd");
  if (replaced !== -1) {
    fields.warn(`The text holds bytes that are no UTF-8, at ${place(text, replaced)}`);
  }
  for (const name of duplicates) {
    fields.warn(`${JSON.stringify(name)} is given more than once; the last one counts`);
  }
  const enableIpv4 = fields.boolean("EnableIPv4") ?? true;
  const enableIpv6 = fields.boolean("EnableIPv6") ?? false;
  const ipv4 = readFamily(fields, 4, enableIpv4);
  const ipv6 = readFamily(fields, 6, enableIpv6);
  if (!enableIpv4 && !enableIpv6) {
    fields.fault("EnableIPv4 and EnableIPv6 are both false; enable one of them at least");
  }
  const enableNFTables = fields.boolean("EnableNFTables") ?? false;
  const backend = readBackend(fields);
  const families = present({ ipv4, ipv6 });
  if (backend !== undefined) {
    try {
      options.readBackend?.(backend, families).forEach((warning) => fields.warn(warning));
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      error.faults.forEach((fault) => fields.fault(fault));
    }
  }
  const warnings = fields.finish();
  return {
    config: {
      ...families,
      enableNFTables,
      backend: backend!, // it is only missing beside a fault
    },
    warnings,
  };
}

function parseObject(text: string) {
  if (text.trim() === "") throw new ConfigError(SUBJECT, ["it is empty"]);
  let parsed;
  try {
    parsed = parseJson(text);
  } catch (cause) {
    throw new ConfigError(SUBJECT, [describeError(cause)], { cause });
  }
  const { value, duplicates } = parsed;
  if (!isObject(value)) {
    throw new ConfigError(SUBJECT, [`it must be a JSON object, not ${kindOf(value)}`]);
  }
  return { value, duplicates };
}

/** Upstream's limits: at least four subnets per network, at least two hosts' addresses in each. */
const LIMITS = {
  4: { prefix: "", longestSubnet: 30, longestNetwork: 28, usualSubnet: 24, tooSmall: "network" },
  6: {
    prefix: "IPv6",
    longestSubnet: 126,
    longestNetwork: 124,
    usualSubnet: 64,
    tooSmall: "IPv6Network",
  },
} as const;

/** One family's keys; `undefined` if it is off, or beside a fault. */
function readFamily(
  fields: FieldReader,
  family: Family,
  enabled: boolean,
): FamilyConfig | undefined {
  const { prefix, longestSubnet, longestNetwork, usualSubnet, tooSmall } = LIMITS[family];
  const name = (suffix: string) => prefix + suffix;
  if (!enabled) {
    warnOfSwitchedOff(fields, family, ["Network", "SubnetLen", "SubnetMin", "SubnetMax"].map(name));
    return undefined;
  }
  const faultsBefore = fields.faults.length;
  const network = fields.prefix(name("Network"), { family });
  const givenLength = readSubnetLength(fields, name("SubnetLen"), longestSubnet);
  const givenMin = fields.address(name("SubnetMin"), { family });
  const givenMax = fields.address(name("SubnetMax"), { family });
  if (fields.faults.length > faultsBefore) return undefined;
  if (network === undefined || network.length === 0) {
    fields.fault(`please define a correct ${name("Network")} parameter in the flannel config`);
    return undefined;
  }
  if (givenLength === undefined && network.length > longestNetwork) {
    fields.fault(
      `${tooSmall} is too small. Minimum useful network prefix is /${longestNetwork}: ` +
        `${name("Network")} is ${network}`,
    );
    return undefined;
  }
  if (givenLength !== undefined && givenLength < network.length + 2) {
    fields.fault(
      `network must be able to accommodate at least four subnets: ${name("SubnetLen")} ` +
        `${givenLength} in ${name("Network")} ${network} gives fewer`,
    );
    return undefined;
  }
  const subnetLength = givenLength ?? Math.max(usualSubnet, network.length + 2);
  const subnetSize = 1n << BigInt(addressBits(family) - subnetLength);

  // Upstream leaves the first subnet out, and takes the unspecified address for "not given".
  const subnetMin = isGiven(givenMin) ? givenMin : network.address.add(subnetSize);
  const subnetMax = isGiven(givenMax) ? givenMax : new Prefix(network.last, subnetLength).address;
  for (const [suffix, bound] of [["SubnetMin", subnetMin], ["SubnetMax", subnetMax]] as const) {
    if (!network.contains(bound)) {
      fields.fault(
        `${name(suffix)} is not in the range of the ${name("Network")}: ` +
          `${bound} is outside ${network}`,
      );
    } else if (!new Prefix(bound, subnetLength).address.equals(bound)) {
      fields.fault(`${name(suffix)} is not on a SubnetLen boundary: ${bound}/${subnetLength}`);
    }
  }
  if (fields.faults.length === faultsBefore && subnetMin.value > subnetMax.value) {
    fields.fault(
      `${name("SubnetMin")} ${subnetMin} is after ${name("SubnetMax")} ${subnetMax}, ` +
        `so there is no subnet to lease`,
    );
  }
  const last = new Prefix(subnetMax, subnetLength).last;
  for (const { prefix, use, works } of SPECIAL) {
    if (prefix.family !== family) continue;
    if (prefix.last.value < subnetMin.value || prefix.address.value > last.value) continue;
    const what = `the ${use} addresses ${prefix}`;
    if (works) {
      fields.warn(
        `${name("Network")} ${network} has subnets in ${what}, which many programs refuse`,
      );
    } else {
      fields.fault(
        `${name("Network")} ${network} has subnets in ${what}, which no host sends to another; ` +
          `choose a private network such as ${family === 4 ? "10.24.0.0/16" : "fd00:24::/48"}`,
      );
    }
  }
  return { network, subnetLength, subnetMin, subnetMax };
}

/** What no pod can use (RFC 6890), though upstream takes it, and what Linux routes nevertheless. */
const SPECIAL = ([
  ["127.0.0.0/8", "loopback"],
  ["224.0.0.0/4", "multicast"],
  ["::/127", "loopback"],
  ["fe80::/10", "link-local"],
  ["ff00::/8", "multicast"],
  ["0.0.0.0/8", "reserved", true],
  ["240.0.0.0/4", "reserved", true],
  ["169.254.0.0/16", "link-local", true],
] as const).map(([prefix, use, works]) => ({ prefix: Prefix.parse(prefix), use, works }));

/** The keys of a family that is off are not read, so they may hold anything. */
function warnOfSwitchedOff(fields: FieldReader, family: Family, names: readonly string[]): void {
  const given = names.filter((name) => ![undefined, "", 0].includes(fields.raw(name) as ""));
  if (given.length === 0) return;
  const verb = given.length === 1 ? "has" : "have";
  fields.warn(`${given.join(", ")} ${verb} no effect while EnableIPv${family} is false`);
}

function isGiven(address: Address | undefined): address is Address {
  return address !== undefined && !address.isUnspecified();
}

/** A subnet's length; 0 means "not given", as upstream takes it. */
function readSubnetLength(fields: FieldReader, name: string, longest: number): number | undefined {
  const value = fields.raw(name);
  if (Number.isInteger(value) && Number(value) > longest) {
    fields.faultOf(name, `must be less than /${longest + 1}`);
    return undefined;
  }
  return fields.integer(name, { min: 0, max: longest }) || undefined;
}

/** The families that are enabled in `network`. */
export function enabledFamilies({ network }: { readonly network: NetworkConfig }) {
  return (["ipv4", "ipv6"] as const).flatMap((name) => {
    const family = network[name];
    return family ? [{ name, ...family }] : [];
  });
}

/** The backend's type and options; `undefined` beside a fault. */
function readBackend(fields: FieldReader): NetworkConfig["backend"] | undefined {
  if (!fields.has("Backend")) {
    fields.warn("Backend is not given, which means type udp, as in upstream flannel");
    return { type: "udp", options: { Type: "udp" } };
  }
  const options = fields.raw("Backend") ?? {}; // null: an object without Type, as upstream has it
  if (!isObject(options)) {
    fields.faultOf("Backend", `must be an object such as {"Type":"vxlan"}, not ${kindOf(options)}`);
    return undefined;
  }
  rememberSecrets(options);
  const backendFields = new FieldReader(options, { subject: "Backend" });
  const type = backendFields.string("Type");
  if (type === undefined && backendFields.faults.length === 0) {
    backendFields.faultOf("Type", 'is missing; give one such as "vxlan" or "ali-vpc"');
  }
  backendFields.faults.forEach((fault) => fields.fault(fault));
  return type === undefined ? undefined : { type: type.toLowerCase(), options };
}

/** Keys of backends, ours and upstream's, whose values no log may show. */
const SECRET_NAME = /secret|password|token|psk|privatekey/i;

/** The raw options outlive the parsing, so they are made unprintable even if one logs them. */
function rememberSecrets(options: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(options)) {
    if (typeof value === "string" && value.length <= MAX_SECRET_CHARS && SECRET_NAME.test(name)) {
      rememberSecret(value);
    }
  }
}
