import assert from "node:assert/strict";
import { Secret } from "../secret.ts";
import { cleanText } from "./clean_text.ts";

Deno.test("cleanText() removes what the service and the library repeat", () => {
  new Secret("canary-secret-value");
  const texts = [
    "server string to sign is:POST&%2F&AccessKeyId%3DLTAI5tCanary0001%26Action%3DX",
    "Bad, URL: https://vpc.example/?AccessKeyId=LTAI5tCanary0001&SecurityToken=CANARYTOKEN",
    "POST https://vpc.example/?Signature=CANARYTOKEN&x=1 failed.",
    '{"AccessKeyId":"LTAI5tCanary0001","SecurityToken":"CANARYTOKEN"}',
    "key STS.NUCanary0001abc is unknown",
    "SecurityToken=CANARYTOKEN",
    "a canary-secret-value b",
    "canary%2Dsecret-value LTAI5tCanary0001",
  ];
  for (const text of texts) {
    assert.doesNotMatch(cleanText(text), /Canary0001|CANARYTOKEN|canary-secret-value/, text);
  }
  assert.equal(cleanText("two\n\u001b[31mlines\u0000"), "two [31mlines");
  assert.equal(cleanText("x".repeat(1000)).length, 301);
});
