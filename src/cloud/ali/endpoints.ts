import { lookup } from "node:dns/promises";
import { OperatorError } from "../../errors.ts";

/** The services that are called. */
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

/** Whether the system's resolver knows a host name. */
export type Resolve = (host: string) => Promise<unknown>;

/**
 * The URL of a service: the in-VPC name, which instances without Internet access can use, or the
 * public one where the resolver does not know the former.
 */
export async function chooseEndpoint(
  product: Product,
  regionId: string,
  resolve: Resolve = (host) => lookup(host),
): Promise<string> {
  const [inside, outside] = endpointHosts(product, regionId);
  try {
    await resolve(inside);
    return `https://${inside}`;
  } catch {
    return `https://${outside}`;
  }
}
