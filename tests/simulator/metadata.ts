import { Address, addressBits, Prefix } from "../../src/net/mod.ts";
import { delay } from "../../src/util/time.ts";
import type { Cloud } from "./cloud.ts";
import { htmlAnswer, type HttpAnswer, type HttpRequest } from "./http_server.ts";
import type { Instance, RequestRecord } from "./model.ts";
import { describeCredentials, isoSeconds } from "./sts_actions.ts";

const ROOT = "/latest/meta-data/";
const TOKEN_PATH = "/latest/api/token";
const MAX_TTL_SECONDS = 21_600;

/**
 * The instance metadata service, IMDSv1 and v2. It knows an instance by the address that the
 * connection comes from; to others it does not answer, as no route leads to it from elsewhere.
 */
export class MetadataServer {
  readonly #cloud: Cloud;
  readonly #tokens = new Map<string, { instanceId: string; expiresAtMs: number }>();
  readonly #bursts = new Map<string, { second: number; requests: number }>();

  constructor(cloud: Cloud) {
    this.#cloud = cloud;
  }

  /** Answers one request; `instanceId` overrides the source address. */
  async handle(request: HttpRequest, instanceId?: string): Promise<HttpAnswer> {
    const cloud = this.#cloud;
    const path = request.target.replace(/\?.*$/, "").replaceAll("%3A", ":").replaceAll("%3a", ":");
    const record = cloud.record({
      service: "metadata",
      action: `${request.method} ${path}`,
      method: request.method,
      params: {},
      accessKeyId: "",
      source: request.source,
    });
    const instance = instanceId === undefined
      ? cloud.network.instanceAt(request.source)
      : cloud.network.instances.get(instanceId);
    const answer = await this.#answer({ request, path, record, instance });
    record.finishedAtMs = cloud.nowMs();
    if (answer.kind === "drop" || answer.kind === "hang") {
      record.code = answer.kind === "drop" ? "dropped" : "no answer";
    } else {
      record.status = answer.status;
      record.code = answer.kind === "truncate"
        ? "truncated"
        : answer.status < 300
        ? "OK"
        : String(answer.status);
    }
    return answer;
  }

  async #answer(exchange: Exchange): Promise<HttpAnswer> {
    const { request, record, instance } = exchange;
    if (!instance || !this.#cloud.behaviour.metadata.reachable) return { kind: "hang" };
    const effect = this.#cloud.faults.decide(record);
    switch (effect?.kind) {
      case "drop":
      case "hang":
        return { kind: effect.kind };
      case "performThenDrop":
        return { kind: "drop" };
      case "html":
      case "empty":
      case "error":
      case "performThenError":
        return htmlAnswer(effect.status, "Error");
      case "delay":
      case "delayAnswer":
        await delay(effect.delayMs, request);
    }
    const answer = this.#serve({ ...exchange, instance });
    return effect?.kind === "truncate" ? { ...answer, kind: "truncate" } : answer;
  }

  #serve({ request, path, instance }: Exchange & { instance: Instance }): Response {
    if (this.#isBurst(instance)) return htmlAnswer(429, "Too Many Requests");
    if (request.headers.has("x-forwarded-for")) return htmlAnswer(403, "Forbidden");
    if (path === TOKEN_PATH) return this.#issueToken(request, instance);
    if (request.method !== "GET") return htmlAnswer(405, "Method Not Allowed");
    const token = request.headers.get("x-aliyun-ecs-metadata-token");
    if (token !== undefined) {
      const known = this.#tokens.get(token);
      if (known?.instanceId !== instance.id || known.expiresAtMs <= this.#cloud.nowMs()) {
        return htmlAnswer(401, "Unauthorized");
      }
    } else if (instance.httpTokens === "required") {
      return htmlAnswer(403, "Forbidden");
    }
    const value = this.#read(path, instance);
    return value === undefined ? htmlAnswer(404, "Not Found") : plain(value);
  }

  #issueToken(request: HttpRequest, instance: Instance): Response {
    if (request.method !== "PUT") return htmlAnswer(405, "Method Not Allowed");
    const ttl = request.headers.get("x-aliyun-ecs-metadata-token-ttl-seconds") ?? "";
    const seconds = /^\d{1,9}$/.test(ttl) ? Number(ttl) : 0;
    if (seconds < 1 || seconds > MAX_TTL_SECONDS) return htmlAnswer(400, "Bad Request");
    const token = `${this.#cloud.random.text(40)}==`;
    const expiresAtMs = this.#cloud.nowMs() + seconds * 1000;
    this.#tokens.set(token, { instanceId: instance.id, expiresAtMs });
    return plain(token);
  }

  #isBurst(instance: Instance): boolean {
    const limit = this.#cloud.behaviour.metadata.burst;
    if (limit === undefined) return false;
    const second = Math.floor(this.#cloud.nowMs() / 1000);
    let burst = this.#bursts.get(instance.id);
    if (burst?.second !== second) {
      burst = { second, requests: 0 };
      this.#bursts.set(instance.id, burst);
    }
    return ++burst.requests > limit;
  }

  /** The value of a leaf, the children of a directory, or `undefined`. */
  #read(path: string, instance: Instance): string | undefined {
    if (path === "/latest" || path === "/latest/") return "dynamic\nmeta-data\nuser-data";
    if (!`${path}/`.startsWith(ROOT)) return undefined;
    // Old documents write "Ram", and the service takes it.
    const name = path.slice(ROOT.length).replace(/^Ram\//, "ram/");
    const leaves = instanceLeaves(this.#cloud, instance);
    const leaf = leaves.get(name);
    if (leaf) return leaf();
    const directory = name === "" || name.endsWith("/") ? name : `${name}/`;
    const children = new Set<string>();
    for (const each of leaves.keys()) {
      if (!each.startsWith(directory)) continue;
      const [child, ...rest] = each.slice(directory.length).split("/");
      // The roles are listed as names, although each could be read as a file.
      children.add(rest.length > 0 ? `${child}/` : child!);
    }
    return children.size > 0 ? [...children].sort().join("\n") : undefined;
  }
}

type Response = Extract<HttpAnswer, { kind: "response" }>;

interface Exchange {
  readonly request: HttpRequest;
  readonly path: string;
  readonly record: RequestRecord;
  readonly instance: Instance | undefined;
}

/** Every readable path below meta-data, each with how to get its value. */
function instanceLeaves(cloud: Cloud, instance: Instance): Map<string, () => string> {
  const { network } = cloud;
  const vpc = network.vpc(instance.vpcId);
  const vSwitch = network.vSwitch(instance.vSwitchId);
  const leaves = new Map<string, () => string>();
  const put = (path: string, value: string) => leaves.set(path, () => value);
  put("region-id", vpc.regionId);
  put("zone-id", vSwitch.zoneId);
  put("instance-id", instance.id);
  put("hostname", instance.name);
  put("owner-account-id", vpc.accountId);
  put("vpc-id", vpc.id);
  put("vswitch-id", vSwitch.id);
  put("vpc-cidr-block", vpc.cidr);
  put("vswitch-cidr-block", vSwitch.cidr);
  put("mac", instance.mac);
  put("private-ipv4", instance.privateIp);
  if (instance.publicIp !== undefined) {
    put("eipv4", instance.publicIp);
    put("public-ipv4", instance.publicIp);
  }
  for (const each of network.interfacesOf(instance.id)) {
    const own = network.vSwitch(each.vSwitchId);
    const block = Prefix.parse(own.cidr);
    const putOwn = (name: string, value: string) =>
      put(`network/interfaces/macs/${each.mac}/${name}`, value);
    putOwn("network-interface-id", each.id);
    putOwn("vpc-id", each.vpcId);
    putOwn("vswitch-id", each.vSwitchId);
    putOwn("primary-ip-address", each.privateIp);
    putOwn("private-ipv4s", `["${each.privateIp}"]`);
    putOwn("netmask", netmask(block));
    putOwn("gateway", gateway(block));
    putOwn("vswitch-cidr-block", own.cidr);
    putOwn("vpc-cidr-block", vpc.cidr);
    if (each.ipv4Prefixes.length > 0) putOwn("ipv4-prefixes", each.ipv4Prefixes.join("\n"));
    if (own.ipv6Cidr === undefined || vpc.ipv6Cidr === undefined) continue;
    putOwn("vswitch-ipv6-cidr-block", own.ipv6Cidr);
    putOwn("vpc-ipv6-cidr-blocks", `[${vpc.ipv6Cidr}]`);
    putOwn("ipv6-gateway", gateway(Prefix.parse(own.ipv6Cidr)));
    // Unlike its IPv4 sibling this list has no quotes.
    putOwn("ipv6s", `[${each.ipv6s.join(", ")}]`);
    if (each.ipv6Prefixes.length > 0) putOwn("ipv6-prefixes", each.ipv6Prefixes.join("\n"));
  }
  const { ramRole } = instance;
  if (ramRole !== undefined && cloud.credentials.hasRole(ramRole)) {
    leaves.set(`ram/security-credentials/${ramRole}`, () => roleDocument(cloud, ramRole));
  }
  return leaves;
}

function roleDocument(cloud: Cloud, role: string): string {
  const session = cloud.credentials.roleCredentials(role);
  const document = {
    ...describeCredentials(session),
    LastUpdated: isoSeconds(session.issuedAtMs),
    Code: "Success",
  };
  return JSON.stringify(document, null, 2);
}

/** The service puts a vSwitch's gateway three below the end of its block. */
function gateway(block: Prefix): string {
  return block.last.add(-2n).toString();
}

function netmask(block: Prefix): string {
  const bits = addressBits(block.family);
  const mask = (1n << BigInt(bits)) - (1n << BigInt(bits - block.length));
  return new Address(block.family, mask).toString();
}

function plain(body: string): Response {
  return { kind: "response", status: 200, contentType: "text/plain", body };
}
