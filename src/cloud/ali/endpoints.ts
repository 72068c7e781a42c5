/** Finds the services' addresses. @module */
import { lookup } from "node:dns/promises";
import { createConnection } from "node:net";
import { OperatorError } from "../../errors.ts";

export type Product = "vpc" | "ecs" | "sts";

/**
 * Public names of regions that do not follow `<product>.<region>.aliyuncs.com`, from the official
 * SDKs' tables (VPC 2016-04-28, ECS 2014-05-26).
 */
const PUBLIC_EXCEPTIONS: Readonly<Record<string, string>> = {
  "ecs cn-hangzhou": "ecs-cn-hangzhou.aliyuncs.com",
  "ecs cn-shanghai-finance-1": "ecs-cn-hangzhou.aliyuncs.com",
  "ecs cn-shenzhen-finance-1": "ecs-cn-hangzhou.aliyuncs.com",
  "ecs cn-north-2-gov-1": "ecs.aliyuncs.com",
  "ecs cn-hangzhou-finance": "ecs.aliyuncs.com",
  "vpc cn-hangzhou": "vpc.aliyuncs.com",
  "vpc cn-shanghai-finance-1": "vpc.aliyuncs.com",
  "vpc cn-shenzhen-finance-1": "vpc.aliyuncs.com",
  "vpc cn-north-2-gov-1": "vpc.aliyuncs.com",
  "vpc cn-hangzhou-finance": "vpc.aliyuncs.com",
};

/** The name inside a VPC and the public one, in the order of preference. */
export function endpointHosts(product: Product, regionId: string): readonly [string, string] {
  return [
    `${product}-vpc.${regionId}.aliyuncs.com`,
    PUBLIC_EXCEPTIONS[`${product} ${regionId}`] ?? `${product}.${regionId}.aliyuncs.com`,
  ];
}

/**
 * `text` as a base URL without trailing slash; `scheme` is for text that names none.
 *
 * @throws {OperatorError} If that gives no http or https URL.
 */
export function normalizeEndpoint(text: string, scheme: "http" | "https" = "https"): string {
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `${scheme}://${text}`);
  if (url === null) throw new OperatorError(`Cannot use endpoint "${text}": it is no URL`);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new OperatorError(`Cannot use endpoint "${text}": it must be an http or https URL`);
  }
  if (url.username !== "" || url.search !== "" || url.hash !== "") {
    throw new OperatorError("Cannot use endpoint: user, query and fragment are not allowed in it");
  }
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/+$/, "")}`;
}

/** How an endpoint is tried; fulfilled if it is there. */
export interface EndpointProbe {
  /** Whether the system's resolver knows a host name. */
  resolve(host: string): Promise<unknown>;
  /** Whether a host accepts connections to port 443. */
  connect(host: string): Promise<unknown>;
}

/** How long a service may take to accept a connection before another name of it is tried. */
const CONNECT_MS = 3_000;

const PROBE: EndpointProbe = {
  resolve: (host) => lookup(host),
  connect: (host) =>
    new Promise<void>((resolve, reject) => {
      const socket = createConnection({ host, port: 443, timeout: CONNECT_MS });
      socket.once("connect", () => resolve());
      socket.once("timeout", () => reject(new Error("no answer in time")));
      socket.once("error", reject);
      socket.once("close", () => reject(new Error("closed")));
      const end = () => void socket.destroy();
      for (const event of ["connect", "timeout", "error"]) socket.once(event, end);
    }),
};

/**
 * The URL of a service: the in-VPC name, which instances without Internet access can use, or the
 * public one if the resolver does not know the former or only the public one responds. The in-VPC
 * address is in `100.64.0.0/10`, which other networks on a host take, too.
 */
export async function chooseEndpoint(
  product: Product,
  regionId: string,
  probe: EndpointProbe = PROBE,
): Promise<string> {
  const [inside, outside] = endpointHosts(product, regionId);
  try {
    await probe.resolve(inside);
  } catch {
    return `https://${outside}`;
  }
  try {
    await probe.connect(inside);
  } catch {
    const responds = await probe.connect(outside).then(() => true, () => false);
    if (responds) return `https://${outside}`;
  }
  return `https://${inside}`;
}
