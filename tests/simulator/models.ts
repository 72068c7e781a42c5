/**
 * Checks requests and answers against what the service's maker publishes: the models in the
 * official SDK packages. They are large, and loaded only here.
 *
 * @module
 */
import * as ecs from "@alicloud/ecs20140526";
import * as vpc from "@alicloud/vpc20160428";
import type { RequestRecord } from "./model.ts";

/** A class of the SDK: wire names and types by member. */
interface Model {
  names(): Readonly<Record<string, string>>;
  types(): Readonly<Record<string, ModelType>>;
}

type ModelType = "string" | "number" | "boolean" | Model | {
  readonly type: "array";
  readonly itemType: ModelType;
};

/** Services with an official model here. */
export type ModelledService = "vpc" | "ecs";

/** Parameters of every RPC call, which no model lists. */
const COMMON = new Set([
  "Action",
  "Version",
  "Format",
  "Timestamp",
  "AccessKeyId",
  "SecurityToken",
  "Signature",
  "SignatureMethod",
  "SignatureVersion",
  "SignatureNonce",
]);

/** What is wrong with an answer's body: members that are unknown, misplaced or of another type. */
export function responseFaults(service: ModelledService, action: string, body: unknown): string[] {
  return valueFaults(body, findModel(service, `${action}ResponseBody`), action);
}

/** Parameters of a recorded request that the official request model does not have. */
export function requestFaults(
  request: Pick<RequestRecord, "service" | "action" | "params">,
): string[] {
  if (request.service !== "vpc" && request.service !== "ecs") return [];
  const model = findModel(request.service, `${request.action}Request`);
  return Object.keys(request.params)
    .filter((name) => !COMMON.has(name) && !hasParameter(model, name.split(".")))
    .map((name) => `${request.action}: the service knows no parameter ${name}`);
}

function findModel(service: ModelledService, name: string): Model {
  const exports = (service === "vpc" ? vpc : ecs) as unknown as Record<string, Model>;
  const model = exports[name];
  if (!model) throw new Error(`Cannot find ${name} in the official ${service} package`);
  return model;
}

/** Whether `path`, such as `RouteEntries.1.NextHop`, leads through `type` to a scalar. */
function hasParameter(type: ModelType, path: readonly string[]): boolean {
  const [head, ...rest] = path;
  if (typeof type === "string") return head === undefined;
  if (head === undefined) return false;
  if ("itemType" in type) return /^[1-9]\d*$/.test(head) && hasParameter(type.itemType, rest);
  const member = memberType(type, head);
  return member !== undefined && hasParameter(member, rest);
}

function valueFaults(value: unknown, type: ModelType, path: string): string[] {
  if (typeof type === "string") {
    return kindOf(value) === type ? [] : [`${path}: ${kindOf(value)} instead of ${type}`];
  }
  if ("itemType" in type) {
    if (!Array.isArray(value)) return [`${path}: ${kindOf(value)} instead of a list`];
    return value.flatMap((item, index) => valueFaults(item, type.itemType, `${path}[${index}]`));
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return [`${path}: ${kindOf(value)} instead of an object`];
  }
  return Object.entries(value).flatMap(([name, member]) => {
    const inner = memberType(type, name);
    return inner ? valueFaults(member, inner, `${path}.${name}`) : [`${path}.${name}: unknown`];
  });
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "list" : typeof value;
}

function memberType(model: Model, wireName: string): ModelType | undefined {
  const member = Object.entries(model.names()).find(([, name]) => name === wireName)?.[0];
  return member === undefined ? undefined : model.types()[member];
}
