import assert from "node:assert/strict";
import { fetchReason } from "./fetch_reason.ts";

Deno.test("fetchReason() leaves out the addresses, of which the own port changes each time", () => {
  const cases = [
    [
      "error sending request from 127.0.0.1:40184 for http://127.0.0.1:35031/v2/keys/x " +
      "(127.0.0.1:35031): client error (SendRequest): something new",
      "something new",
    ],
    [
      "error sending request for url (http://a:1/v2/keys/x): client error (Connect): tcp connect " +
      "error: Connection refused (os error 111)",
      "tcp connect error: Connection refused (os error 111)",
    ],
    [
      "error sending request from [::1]:40184 for http://[::1]:35031/ ([::1]:35031): " +
      "client error (SendRequest): invalid HTTP version parsed",
      "what answers there does not speak HTTP",
    ],
    ["received unexpected message from connection", "what answers there does not speak HTTP"],
    ["socket hang up", "socket hang up"],
  ] as const;
  for (const [text, reason] of cases) assert.equal(fetchReason(text), reason);
});
