import { delay } from "../../src/util/time.ts";
import type { Action } from "./action.ts";
import { ApiError } from "./api_error.ts";
import type { Cloud } from "./cloud.ts";
import type { FaultEffect } from "./config.ts";
import { equalTexts, type Principal } from "./credentials.ts";
import { ecsActions } from "./ecs_actions.ts";
import { htmlAnswer, type HttpAnswer, type HttpRequest } from "./http_server.ts";
import type { RequestRecord } from "./model.ts";
import { Parameters } from "./parameters.ts";
import { routeBatchActions } from "./route_batch_actions.ts";
import { routeListActions } from "./route_list_actions.ts";
import { routeWriteActions } from "./route_write_actions.ts";
import { sign, stringToSign } from "./signature.ts";
import { ASSUME_ROLE_WITH_OIDC, assumeRoleWithOidc, stsActions } from "./sts_actions.ts";
import { vpcActions } from "./vpc_actions.ts";

/** The APIs, each behind an endpoint of its own. */
export type ApiService = "vpc" | "ecs" | "sts";

const VERSIONS: Readonly<Record<ApiService, string>> = {
  vpc: "2016-04-28",
  ecs: "2014-05-26",
  sts: "2015-04-01",
};

const ACTIONS: Readonly<Record<ApiService, readonly Action[]>> = {
  vpc: [...vpcActions, ...routeListActions, ...routeWriteActions, ...routeBatchActions],
  ecs: ecsActions,
  sts: stsActions,
};

/** Timestamps may be off by this; nonces are remembered as long. */
const WINDOW_MS = 15 * 60_000;
const SIGNATURE_PARAMETERS = [
  "AccessKeyId",
  "SignatureMethod",
  "SignatureVersion",
  "SignatureNonce",
  "Timestamp",
  "Signature",
];
/** Parameters that no record may hold. */
const SECRET_PARAMETERS = new Set(["Signature", "SecurityToken", "OIDCToken"]);

type Body = Readonly<Record<string, unknown>>;

/** Takes RPC calls for one cloud: the gate before the actions, and the faults around both. */
export class ApiServer {
  readonly #cloud: Cloud;
  readonly #nonces = new Map<string, number>();
  #unknownActions = 0;

  constructor(cloud: Cloud) {
    this.#cloud = cloud;
  }

  /** Answers one request to the endpoint that serves `services`. */
  async handle(services: readonly ApiService[], request: HttpRequest): Promise<HttpAnswer> {
    const parameters = readParameters(request);
    const version = parameters.get("Version");
    const service = services.find((each) => VERSIONS[each] === version) ?? services[0]!;
    const record = this.#cloud.record({
      service,
      action: parameters.get("Action") ?? "",
      method: request.method,
      params: Object.fromEntries([...parameters].filter(([name]) => !SECRET_PARAMETERS.has(name))),
      accessKeyId: parameters.get("AccessKeyId") ?? "",
      source: request.source,
    });
    const effect = this.#cloud.faults.decide(record);
    const answer = await this.#answer({ service, parameters, request, record, effect });
    record.finishedAtMs = this.#cloud.nowMs();
    if (answer.kind === "drop") record.code = "dropped";
    else if (answer.kind === "hang") record.code = "no answer";
    else record.status = answer.status;
    if (answer.kind === "truncate") record.code = "truncated";
    return answer;
  }

  async #answer(exchange: Exchange): Promise<HttpAnswer> {
    const { effect, request, record } = exchange;
    switch (effect?.kind) {
      case "drop":
      case "hang":
        return { kind: effect.kind };
      case "html":
      case "empty":
        record.code = effect.kind;
        return effect.kind === "html"
          ? htmlAnswer(effect.status, "Bad Gateway")
          : { kind: "response", status: effect.status, contentType: "text/plain", body: "" };
      case "error":
        return this.#errorAnswer(exchange, effect);
      case "delay":
        await delay(effect.delayMs, request);
    }
    const answer = effect?.kind === "slowTask"
      ? this.#cloud.routes.slowly(effect.taskMs, () => this.#perform(exchange))
      : this.#perform(exchange);
    switch (effect?.kind) {
      case "performThenDrop":
        return { kind: "drop" };
      case "performThenError":
        return this.#errorAnswer(exchange, effect);
      case "truncate":
        return { ...answer, kind: "truncate" };
      case "delayAnswer":
        await delay(effect.delayMs, request);
    }
    return answer;
  }

  #perform(exchange: Exchange): Extract<HttpAnswer, { kind: "response" }> {
    const { record } = exchange;
    try {
      const body = this.#pass(exchange);
      record.code = "OK";
      return json(200, { RequestId: record.requestId, ...body });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      record.code = error.code;
      return json(error.status, {
        RequestId: record.requestId,
        HostId: exchange.request.headers.get("host") ?? "",
        Code: error.code,
        Message: error.message,
        Recommend: `https://api.aliyun.com/troubleshoot?q=${error.code}`,
        ...error.details,
      });
    }
  }

  #errorAnswer(
    { record, request }: Exchange,
    effect: Extract<FaultEffect, { kind: "error" | "performThenError" }>,
  ): HttpAnswer {
    record.code = effect.code ?? "error without code";
    return json(effect.status, {
      RequestId: record.requestId,
      HostId: request.headers.get("host") ?? "",
      ...(effect.code === undefined ? {} : { Code: effect.code }),
      Message: effect.message ?? "The request processing has failed due to some unknown error.",
    });
  }

  /** The gate: everything between the wire and the action itself. */
  #pass({ service, parameters, request, record }: Exchange): Body {
    const cloud = this.#cloud;
    const params = new Parameters(parameters);
    const name = params.required("Action");
    if (params.required("Version") !== VERSIONS[service]) {
      throw new ApiError(400, "InvalidVersion", "Specified parameter Version is not valid.");
    }
    if (params.optional("Format")?.toUpperCase() !== "JSON") {
      throw new ApiError(400, "InvalidParameter", "The simulator answers with Format=JSON only.");
    }
    const byOidc = service === "sts" && name === ASSUME_ROLE_WITH_OIDC;
    if (!byOidc) { for (const each of SIGNATURE_PARAMETERS) params.required(each); }
    const action = ACTIONS[service].find((each) => each.name === name);
    if (!action && !byOidc) throw this.#unknownAction();
    if (cloud.behaviour.requireTls && !request.secure) {
      throw new ApiError(404, "InvalidProtocol.NeedSsl", "Your request is denied: use HTTPS.");
    }
    cloud.settle();
    const regionId = params.optional("RegionId") ?? cloud.regionId;
    const throttle = { throttle: cloud.behaviour.throttle, nowMs: cloud.nowMs() };
    if (!action) {
      cloud.throttle.count({ regionId, accountId: "", action: name }, throttle);
      return assumeRoleWithOidc(cloud, params);
    }
    const principal = this.#authenticate(params, parameters, request.method);
    cloud.throttle.count({ regionId, accountId: principal.accountId, action: name }, throttle);
    if (service !== "sts") {
      cloud.credentials.authorize(principal, `${service}:${name}`, cloud.behaviour);
    }
    if (action.regionRequired) params.required("RegionId");
    const regions = [...cloud.network.vpcs.values()].map((vpc) => vpc.regionId);
    if (regionId !== cloud.regionId && !regions.includes(regionId)) {
      throw new ApiError(404, "InvalidRegionId.NotFound", "The specified RegionId does not exist.");
    }
    return action.handle({
      cloud,
      params,
      principal,
      regionId,
      performed: () => record.performed = true,
    });
  }

  #authenticate(
    params: Parameters,
    parameters: ReadonlyMap<string, string>,
    method: string,
  ): Principal {
    const principal = this.#cloud.credentials.find(params.required("AccessKeyId"));
    if (!principal) {
      throw new ApiError(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.");
    }
    if (!principal.active) {
      throw new ApiError(400, "InvalidAccessKeyId.Inactive", "Specified access key is disabled.");
    }
    this.#checkTimestamp(params.required("Timestamp"));
    this.#checkNonce(params.required("SignatureNonce"));
    checkSignature(principal, { params, parameters, method });
    this.#checkSecurityToken(principal, params.optional("SecurityToken"));
    return principal;
  }

  #checkTimestamp(text: string): void {
    const timeMs = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) ? Date.parse(text) : NaN;
    if (Number.isNaN(timeMs)) {
      throw new ApiError(
        400,
        "InvalidTimeStamp.Format",
        "Specified time stamp or date value is not well formatted.",
      );
    }
    if (Math.abs(timeMs - this.#cloud.nowMs()) > WINDOW_MS) {
      throw new ApiError(
        400,
        "InvalidTimeStamp.Expired",
        "Specified time stamp or date value is expired.",
      );
    }
  }

  #checkNonce(nonce: string): void {
    const nowMs = this.#cloud.nowMs();
    for (const [known, seenAtMs] of this.#nonces) {
      if (nowMs - seenAtMs <= WINDOW_MS) break; // a Map keeps the order of insertion
      this.#nonces.delete(known);
    }
    if (this.#nonces.has(nonce)) {
      throw new ApiError(400, "SignatureNonceUsed", "Specified signature nonce was used already.");
    }
    this.#nonces.set(nonce, nowMs);
  }

  #checkSecurityToken({ session }: Principal, token: string | undefined): void {
    if (!session && token === undefined) return;
    if (token === undefined) {
      throw new ApiError(
        400,
        "MissingSecurityToken",
        "SecurityToken is mandatory for this action.",
      );
    }
    if (!token.startsWith("CAIS")) {
      throw new ApiError(
        400,
        "InvalidSecurityToken.Malformed",
        "Specified SecurityToken is malformed.",
      );
    }
    if (!session || !equalTexts(token, session.token)) {
      throw new ApiError(
        400,
        "InvalidSecurityToken.MismatchWithAccessKey",
        "Specified SecurityToken mismatch with the AccessKey.",
      );
    }
    if (session.expiresAtMs <= this.#cloud.nowMs()) {
      throw new ApiError(
        400,
        "InvalidSecurityToken.Expired",
        "Specified SecurityToken is expired.",
      );
    }
  }

  /** Both codes are documented for this case; so both appear. */
  #unknownAction(): ApiError {
    const code = this.#unknownActions++ % 2 === 0
      ? "InvalidApi.NotFound"
      : "InvalidAction.NotFound";
    return new ApiError(404, code, "Specified api is not found, please check your url and method.");
  }
}

interface Exchange {
  readonly service: ApiService;
  readonly parameters: ReadonlyMap<string, string>;
  readonly request: HttpRequest;
  readonly record: RequestRecord;
  readonly effect: FaultEffect | undefined;
}

function readParameters(request: HttpRequest): Map<string, string> {
  const question = request.target.indexOf("?");
  const query = question < 0 ? "" : request.target.slice(question + 1);
  const isForm = request.headers.get("content-type")?.toLowerCase()
    .startsWith("application/x-www-form-urlencoded");
  const parameters = new Map(new URLSearchParams(query));
  if (isForm) {
    for (const [name, value] of new URLSearchParams(request.body)) parameters.set(name, value);
  }
  return parameters;
}

function checkSignature(
  principal: Principal,
  sent: { params: Parameters; parameters: ReadonlyMap<string, string>; method: string },
): void {
  const { params, parameters, method } = sent;
  if (
    params.optional("SignatureMethod") !== "HMAC-SHA1" ||
    params.optional("SignatureVersion") !== "1.0"
  ) {
    throw new ApiError(
      400,
      "IncompleteSignature",
      "The request signature does not conform to Aliyun standards.",
    );
  }
  const text = stringToSign(method, parameters);
  if (equalTexts(sign(text, principal.secret), params.required("Signature"))) return;
  throw new ApiError(
    400,
    "SignatureDoesNotMatch",
    `Specified signature is not matched with our calculation. server string to sign is:${text}`,
  );
}

function json(status: number, body: Body): Extract<HttpAnswer, { kind: "response" }> {
  const contentType = "application/json;charset=utf-8";
  return { kind: "response", status, contentType, body: JSON.stringify(body) };
}
