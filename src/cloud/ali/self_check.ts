/** Tries the client of the cloud's API without the cloud, for `flanneld self-test`. @module */
import * as v from "valibot";
import { Secret } from "../../secret.ts";
import { RateLimiter } from "../rate_limiter.ts";
import { PopRpc } from "./rpc.ts";

/** One call to a service of our own, which fails if the SDK was loaded in the wrong way. */
export async function useClient({ signal }: { signal: AbortSignal }): Promise<void> {
  const reply = { RequestId: "self-test" };
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => Response.json(reply),
  );
  const credentials = { accessKeyId: new Secret("self-test"), accessKeySecret: new Secret("none") };
  await using rpc = new PopRpc({
    service: "vpc",
    endpoint: () => Promise.resolve(`http://127.0.0.1:${server.addr.port}`),
    apiVersion: "2016-04-28",
    credentials: { get: () => Promise.resolve(credentials), invalidate: () => false },
    limiter: new RateLimiter({ burst: 1, perSecond: 1 }),
  });
  const schema = v.object({ RequestId: v.literal(reply.RequestId) });
  await rpc.call("DescribeRegions", {}, schema, { signal });
}
