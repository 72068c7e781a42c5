import { ConfigError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { nearest } from "../util/nearest.ts";
import type { Backend } from "./backend.ts";

/** The `Backend` object of an `ali-vpc` network config, checked. */
export interface AliVpcConfig {
  readonly accessKeyId?: Secret;
  readonly accessKeySecret?: Secret;
  /** Only together with the two above: a temporary key that nobody renews. */
  readonly securityToken?: Secret;
  /** Name of the instance RAM role; absent: what the metadata service names. */
  readonly ramRole?: string;
  /** Empty: the table bound to the instance's vSwitch, and those that peers need. */
  readonly routeTableIds: readonly string[];
  /** Absent: what the metadata service says. Given, the two must agree. */
  readonly regionId?: string;
  readonly vpcId?: string;
  /** How often the route entry is checked. */
  readonly resyncSeconds: number;
  /** `ignore` leaves the interface's source/destination check to the operator. */
  readonly sourceDestCheck: "disable" | "ignore";
}

/** What the plan needs to know about the instance. Gathered by `openAliVpc`. */
export interface AliVpcFacts {
  readonly instanceId: string;
  /** The primary interface. */
  readonly networkInterfaceId: string;
  /** Every table that is to hold the route: the own ones and those that peers' vSwitches use. */
  readonly routeTableIds: readonly string[];
}

const KEYS = [
  "Type",
  "AccessKeyID",
  "AccessKeySecret",
  "SecurityToken",
  "RamRole",
  "RouteTableID",
  "RegionID",
  "VpcID",
  "ResyncSeconds",
  "SourceDestCheck",
] as const;

const RESYNC_SECONDS = { default: 60, min: 10, max: 3600 };

/**
 * `ali-vpc`: the VPC's route tables carry the pod traffic. Each host holds one route entry per
 * table, its own subnet to its own instance, and peers need nothing from it but that; so the lease
 * publishes the public address alone, as upstream flannel writes it.
 */
export const aliVpc: Backend<AliVpcConfig, AliVpcFacts> = {
  type: "ali-vpc",
  // IPv6 entries exist in system tables only, and demand exactly one IPv6 address per instance.
  families: [4],

  parseConfig(options) {
    const reader = new KeyReader(options);
    const accessKeyId = reader.secret("AccessKeyID");
    const accessKeySecret = reader.secret("AccessKeySecret");
    const securityToken = reader.secret("SecurityToken");
    const ramRole = reader.text("RamRole", /^[\w.@-]{1,64}$/, "the name of a RAM role");
    const routeTableIds = reader.routeTableIds();
    const regionId = reader.text(
      "RegionID",
      /^[a-z]+(-[a-z0-9]+)+$/,
      "a region such as cn-hangzhou",
    );
    const vpcId = reader.text("VpcID", /^vpc-[a-z0-9-]+$/, "an id that begins with vpc-");
    const resyncSeconds = reader.resyncSeconds();
    const sourceDestCheck = reader.sourceDestCheck();
    if ((accessKeyId === undefined) !== (accessKeySecret === undefined)) {
      reader.faults.push("AccessKeyID and AccessKeySecret must be given together");
    }
    if (securityToken !== undefined && accessKeyId === undefined) {
      reader.faults.push("SecurityToken needs AccessKeyID and AccessKeySecret");
    }
    if (reader.faults.length > 0) {
      throw new ConfigError("the ali-vpc backend config", reader.faults);
    }
    return {
      config: {
        ...(accessKeyId ? { accessKeyId } : {}),
        ...(accessKeySecret ? { accessKeySecret } : {}),
        ...(securityToken ? { securityToken } : {}),
        ...(ramRole ? { ramRole } : {}),
        routeTableIds,
        ...(regionId ? { regionId } : {}),
        ...(vpcId ? { vpcId } : {}),
        resyncSeconds,
        sourceDestCheck,
      },
      warnings: reader.warnings,
    };
  },

  overheadBytes: () => 0,

  announce(_config, host) {
    if (host.publicIp === undefined) {
      throw new ConfigError("the host", ["ali-vpc needs an IPv4 address to publish"]);
    }
    return { publicIp: host.publicIp, backendType: "" };
  },

  plan({ config, facts, own }) {
    const destination = own.subnet.ipv4;
    return {
      cloudRoutes: destination === undefined ? [] : facts.routeTableIds.map((routeTableId) => ({
        routeTableId,
        destination,
        instanceId: facts.instanceId,
      })),
      sourceDestChecks: config.sourceDestCheck === "ignore"
        ? []
        : [{ networkInterfaceId: facts.networkInterfaceId, enabled: false }],
    };
  },
};

/** Reads keys without case and collects faults. Never quotes the value of a secret. */
class KeyReader {
  readonly faults: string[] = [];
  readonly warnings: string[] = [];
  readonly #values = new Map<string, unknown>();

  constructor(options: Readonly<Record<string, unknown>>) {
    for (const [key, value] of Object.entries(options)) {
      // An empty string is what upstream's Go struct holds for an absent key; null likewise.
      const known = KEYS.find((each) => each.toLowerCase() === key.toLowerCase());
      if (known !== undefined) {
        if (value !== "" && value !== null) this.#values.set(known, value);
        continue;
      }
      const hint = nearest(key, KEYS);
      this.warnings.push(
        `Unknown key "${key}" of backend ali-vpc is ignored` +
          (hint === undefined ? "" : `: did you mean ${hint}?`),
      );
    }
  }

  secret(key: typeof KEYS[number]): Secret | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (typeof value === "string" && value.trim() !== "") return new Secret(value.trim());
    this.faults.push(`${key} must be a string`);
    return undefined;
  }

  text(key: typeof KEYS[number], pattern: RegExp, what: string): string | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    const text = typeof value === "string" ? value.trim() : undefined;
    if (text !== undefined && pattern.test(text)) return text;
    this.faults.push(`${key} must be ${what}, not ${JSON.stringify(value)}`);
    return undefined;
  }

  routeTableIds(): readonly string[] {
    const value = this.#values.get("RouteTableID");
    if (value === undefined) return [];
    const list = Array.isArray(value) ? value : [value];
    if (list.length === 0) this.faults.push("RouteTableID must not be an empty list");
    const ids = new Set<string>();
    for (const item of list) {
      const id = typeof item === "string" ? item.trim() : undefined;
      if (id !== undefined && /^vtb-[a-z0-9-]+$/.test(id)) ids.add(id);
      else {
        this.faults.push(
          `RouteTableID must be an id that begins with vtb-, or a list of them, not ${
            JSON.stringify(item)
          }`,
        );
      }
    }
    return [...ids];
  }

  resyncSeconds(): number {
    const value = this.#values.get("ResyncSeconds") ?? RESYNC_SECONDS.default;
    const { min, max } = RESYNC_SECONDS;
    if (Number.isInteger(value) && Number(value) >= min && Number(value) <= max) {
      return Number(value);
    }
    this.faults.push(
      `ResyncSeconds must be a whole number from ${min} to ${max}, not ${JSON.stringify(value)}`,
    );
    return RESYNC_SECONDS.default;
  }

  sourceDestCheck(): "disable" | "ignore" {
    const value = this.#values.get("SourceDestCheck") ?? "disable";
    const text = typeof value === "string" ? value.trim().toLowerCase() : undefined;
    if (text === "disable" || text === "ignore") return text;
    this.faults.push(
      `SourceDestCheck must be "disable" or "ignore", not ${JSON.stringify(value)}`,
    );
    return "disable";
  }
}
