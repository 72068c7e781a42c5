import { FieldReader } from "../config/fields.ts";
import { ConfigError } from "../errors.ts";
import type { Secret } from "../secret.ts";
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

/** Sooner would spend the account's calls, later would leave a broken route for hours. */
const RESYNC_SECONDS = { min: 10, max: 3600, default: 60 };

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
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    const accessKeyId = fields.secret("AccessKeyID");
    const accessKeySecret = fields.secret("AccessKeySecret");
    const securityToken = fields.secret("SecurityToken");
    const ramRole = matching(fields, "RamRole", ROLE_NAME);
    const regionId = matching(fields, "RegionID", REGION_ID);
    const vpcId = matching(fields, "VpcID", VPC_ID);
    const routeTableIds = (fields.stringList("RouteTableID") ?? []).map((id) => id.trim());
    const badId = routeTableIds.find((id) => !ROUTE_TABLE_ID.pattern.test(id));
    if (badId !== undefined) {
      fields.faultOf("RouteTableID", `must be ${ROUTE_TABLE_ID.noun}, or a list of them`);
    }
    const resyncSeconds = fields.integer("ResyncSeconds", RESYNC_SECONDS);
    const sourceDestCheck = fields.choice("SourceDestCheck", ["disable", "ignore"]);
    if ((accessKeyId === undefined) !== (accessKeySecret === undefined)) {
      fields.fault("Backend.AccessKeyID and Backend.AccessKeySecret must be given together");
    }
    if (securityToken !== undefined && accessKeyId === undefined) {
      fields.fault("Backend.SecurityToken needs AccessKeyID and AccessKeySecret");
    }
    const warnings = fields.finish();
    return {
      config: {
        ...(accessKeyId ? { accessKeyId } : {}),
        ...(accessKeySecret ? { accessKeySecret } : {}),
        ...(securityToken ? { securityToken } : {}),
        ...(ramRole ? { ramRole } : {}),
        routeTableIds: [...new Set(routeTableIds)],
        ...(regionId ? { regionId } : {}),
        ...(vpcId ? { vpcId } : {}),
        resyncSeconds: resyncSeconds ?? RESYNC_SECONDS.default,
        sourceDestCheck: sourceDestCheck ?? "disable",
      },
      warnings,
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

/** A form of text, and what to call it. */
interface Form {
  readonly pattern: RegExp;
  readonly noun: string;
}

const ROLE_NAME: Form = { pattern: /^[\w.@-]{1,64}$/, noun: "the name of a RAM role" };
const REGION_ID: Form = {
  pattern: /^[a-z]+(-[a-z0-9]+)+$/,
  noun: "a region id such as cn-hangzhou",
};
const VPC_ID: Form = { pattern: /^vpc-[a-z0-9-]+$/, noun: "an id that begins with vpc-" };
const ROUTE_TABLE_ID: Form = { pattern: /^vtb-[a-z0-9-]+$/, noun: "an id that begins with vtb-" };

function matching(fields: FieldReader, name: string, form: Form): string | undefined {
  const text = fields.string(name)?.trim();
  if (text === undefined || form.pattern.test(text)) return text;
  fields.faultOf(name, `must be ${form.noun}`);
  return undefined;
}
