import assert from "node:assert/strict";
import { Agent } from "node:http";
import RPCClient from "@alicloud/pop-core";
import { sign, stringToSign } from "./signature.ts";
import { failureOf, TestBench } from "./testing.ts";

// The worked example of the service's documentation of signature version 1.0.
const VECTOR = {
  Action: "DescribeRegions",
  Format: "XML",
  SignatureMethod: "HMAC-SHA1",
  SignatureNonce: "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
  SignatureVersion: "1.0",
  Timestamp: "2016-02-23T12:46:24Z",
  Version: "2014-05-26",
};
const SIGNATURE = "OLeaidS1JvxuMvnyHOwuJ+uX5qY=";

Deno.test("sign() agrees with the documented vector", () => {
  const parameters = new Map(Object.entries({ AccessKeyId: "testid", ...VECTOR }));
  assert.equal(sign(stringToSign("GET", parameters), "testsecret"), SIGNATURE);
});

Deno.test("pop-core signs the documented vector likewise", async () => {
  await using bench = await TestBench.start();
  const agent = new Agent({ keepAlive: false });
  const { Action, Version, ...params } = VECTOR;
  const client = new RPCClient({
    endpoint: bench.simulator.ecsEndpoint,
    apiVersion: Version,
    accessKeyId: "testid",
    accessKeySecret: "testsecret",
  });
  const failure = await failureOf(client.request(Action, params, { agent }));
  const url = new URL(failure.message.slice(failure.message.indexOf("http://")));
  assert.equal(url.searchParams.get("Signature"), SIGNATURE);
});

Deno.test("stringToSign() encodes by RFC 3986 and sorts by bytes", () => {
  const parameters = new Map([["b", "~ *!'()"], ["B", "é+/="], ["Signature", "left out"]]);
  assert.equal(
    stringToSign("POST", parameters),
    "POST&%2F&B%3D%25C3%25A9%252B%252F%253D%26b%3D~%2520%252A%2521%2527%2528%2529",
  );
});
