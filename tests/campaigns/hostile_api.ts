/**
 * A cloud API, or what stands in its place, that sends too much, too slowly, without end, or junk:
 * each call ends within its time with an error that says what is wrong, and costs little memory,
 * few calls and no connection.
 *
 * @module
 */
import { gzipSync } from "node:zlib";
import { EcsClient } from "../../src/cloud/ali/ecs_client.ts";
import { VpcClient } from "../../src/cloud/ali/vpc_client.ts";
import { CredentialsChain } from "../../src/cloud/ali/credentials.ts";
import { AliApiError } from "../../src/cloud/ali/errors.ts";
import { Metadata } from "../../src/cloud/ali/metadata.ts";
import { PopRpc, type Rpc } from "../../src/cloud/ali/rpc.ts";
import { RateLimiter } from "../../src/cloud/rate_limiter.ts";
import { describeError, OperatorError } from "../../src/errors.ts";
import { Prefix } from "../../src/net/mod.ts";
import { Secret } from "../../src/secret.ts";
import { delay } from "../../src/util/time.ts";
import { type HostileAnswer, type HostileRequest, serveHostile } from "../support/hostile_http.ts";
import { type Campaign, CampaignFailure, seededRandom } from "./campaign.ts";

const GIB = 2 ** 30;
/** What the process may grow by while a call is under way; the largest answer that is read is 4 MiB. */
const MAX_GROWTH_BYTES = 96 * 2 ** 20;
const MAX_MESSAGE_CHARS = 1_000;
const MAX_CALLS = 250;
/** Of one exchange with the API. */
const TIMEOUT_MS = 800;
/** Reads have half of the time-out, and a second for the connection. */
const MAX_CALL_MS = 4_000;

/** What the server does to each request. */
type Attack = (answer: HostileAnswer, request: HostileRequest) => Promise<void>;

/** What is done to the server. */
type Use = (target: Target, signal: AbortSignal) => Promise<unknown>;

interface Target {
  readonly url: string;
  readonly rpc: Rpc;
}

const HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/** What no call may take, whatever it asks for. */
const ANSWERS: Readonly<Record<string, Attack>> = {
  "1 GiB with its length": (answer) =>
    sendEndlessly(answer, `${HEAD}content-length: ${GIB}\r\n\r\n`),
  "1 GiB in chunks": async ({ send, signal }) => {
    await send(`${HEAD}transfer-encoding: chunked\r\n\r\n`);
    const chunk = `10000\r\n${" ".repeat(0x10000)}\r\n`;
    for (let sent = 0; sent < GIB && !signal.aborted; sent += 0x10000) await send(chunk);
  },
  "1 GiB until the end of the connection": (answer) =>
    sendEndlessly(answer, `${HEAD}connection: close\r\n\r\n`),
  "1 GiB of an error": (answer) =>
    sendEndlessly(answer, `HTTP/1.1 500 Oops\r\ncontent-length: ${GIB}\r\n\r\n{"Message":"`),
  "256 MiB compressed to little": ({ send }) => {
    BOMB ??= gzipSync(new Uint8Array(256 * 2 ** 20));
    return sendAll(send, [
      `${HEAD}content-encoding: gzip\r\ncontent-length: ${BOMB.length}\r\n\r\n`,
      BOMB,
    ]);
  },
  "a byte every 50 ms": async ({ send, signal }) => {
    await send(`${HEAD}content-length: 100000\r\n\r\n`);
    for (;;) {
      await send(" ");
      await delay(50, { signal });
    }
  },
  "a header's byte every 50 ms": async ({ send, signal }) => {
    await send(`${HEAD}x-slow: `);
    for (;;) {
      await send("a");
      await delay(50, { signal });
    }
  },
  "headers without end": async ({ send, signal }) => {
    await send(HEAD);
    const line = `x-filler: ${"a".repeat(8_000)}\r\n`;
    for (let sent = 0; sent < GIB && !signal.aborted; sent += line.length) await send(line);
  },
  "interim answers without end": async ({ send, signal }) => {
    const interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(400);
    for (let sent = 0; sent < GIB && !signal.aborted; sent += interim.length) await send(interim);
  },
  silence: ({ signal }) => delay(1_500, { signal }),
  "the end of the connection": () => Promise.reject(new Error("closed")),
  "half an answer": async ({ send }) => {
    await send(`${HEAD}content-length: 1000\r\n\r\n{"NextToken":`);
    throw new Error("closed");
  },
  "bytes that are no HTTP": ({ send }) => send("\u0000\u0001SSH-2.0-OpenSSH_9.2\r\n".repeat(500)),
  "a page of HTML": ({ reply }) => reply("<html><body>504 Gateway</body></html>"),
  "nothing at all": ({ reply }) => reply(""),
  "the word null": ({ reply }) => reply("null"),
  "a million brackets": ({ reply }) => reply("[".repeat(1_000_000)),
  "a code of 3 MB": ({ reply }) =>
    reply(JSON.stringify({ Code: "X".repeat(3e6), Message: "Y".repeat(1e5) }), {
      status: "400 Bad",
    }),
  "a message of 3 MB with escapes": ({ reply }) =>
    reply(JSON.stringify({ Code: "Odd", Message: "\u001b[31m \r\n".repeat(3e5) }), {
      status: "400 Bad",
    }),
  "objects where texts belong": ({ reply }) =>
    reply(JSON.stringify({ Code: { a: [1] }, Message: [{}], RequestId: {} }), {
      status: "400 Bad",
    }),
};
let BOMB: Uint8Array | undefined;

const TABLE = "vtb-1";
const ENTRY = { routeTableId: TABLE, destination: Prefix.parse("10.24.7.0/24"), instanceId: "i-1" };

function vpcClient(rpc: Rpc): VpcClient {
  return new VpcClient(rpc, { regionId: "r", vpcId: "vpc-1" });
}

/** Each way to ask something of the API. */
const CALLS: Readonly<Record<string, Use>> = {
  "a list of entries": ({ rpc }, signal) =>
    vpcClient(rpc).readOwn(TABLE, { mark: "m" }, { signal }),
  "a list of interfaces": ({ rpc }, signal) =>
    new EcsClient(rpc, "r").read(["eni-1", "eni-2"], { signal }),
  "a list of vSwitches": ({ rpc }, signal) => vpcClient(rpc).listSubnets([], { signal }),
  "a write": ({ rpc }, signal) =>
    vpcClient(rpc).rename({ ...ENTRY, entryId: "rte-1" }, "m", { signal }),
};

/** Other exchanges, whose answers are small. */
const SMALL_CALLS: Readonly<Record<string, Use>> = {
  "an exchange with the token service": ({ url }, signal) =>
    new CredentialsChain({
      config: {},
      env: (name) => OIDC[name],
      metadata: new Metadata({ endpoint: "http://127.0.0.1:9", patienceMs: 0 }),
      stsEndpoint: () => Promise.resolve(url),
      stsTimeoutMs: TIMEOUT_MS,
      readTextFile: () => Promise.resolve("token"),
    }).get({ signal }),
  "the metadata service": ({ url }, signal) =>
    new Metadata({ endpoint: url, patienceMs: 2 * TIMEOUT_MS, timeoutMs: TIMEOUT_MS / 2 })
      .getMatching("instance-id", /^i-[a-z0-9]{3,40}$/, { signal }),
};

/** As ACK sets it for a pod with a role. */
const OIDC: Readonly<Record<string, string>> = {
  ALIBABA_CLOUD_ROLE_ARN: "acs:ram::1:role/r",
  ALIBABA_CLOUD_OIDC_PROVIDER_ARN: "acs:ram::1:oidc-provider/p",
  ALIBABA_CLOUD_OIDC_TOKEN_FILE: "/token",
};

let serial = 0;
const entry = (id: string | number) => ({
  RouteEntryId: `rte-${id}`,
  DestinationCidrBlock: "10.0.0.0/24",
  Status: "Available",
  Type: "Custom",
  RouteEntryName: "",
  NextHops: { NextHop: [{ NextHopType: "Instance", NextHopId: "i-1" }] },
});
const entries = (rows: readonly object[], token: string, total = rows.length) =>
  JSON.stringify({ NextToken: token, TotalCount: total, RouteEntrys: { RouteEntry: rows } });
const nic = (id: string) => ({ NetworkInterfaceId: id, InstanceId: "i-1", VpcId: "vpc-1" });
const nics = (rows: readonly object[], token: string) =>
  JSON.stringify({ NextToken: token, NetworkInterfaceSets: { NetworkInterfaceSet: rows } });
const vSwitches = (rows: readonly string[], total: number) =>
  JSON.stringify({
    TotalCount: total,
    VSwitches: { VSwitch: rows.map((id) => ({ VSwitchId: id, CidrBlock: "10.0.0.0/24" })) },
  });

/** Lists that go wrong, with the call that asks for them. */
const LISTS: Readonly<Record<string, readonly [call: string, attack: Attack]>> = {
  "the same page with the same token": [
    "a list of entries",
    ({ reply }) => reply(entries([entry(1)], "t")),
  ],
  "the same page with new tokens": [
    "a list of entries",
    ({ reply }) => reply(entries([entry(1)], `t${++serial}`)),
  ],
  "empty pages with new tokens": [
    "a list of entries",
    ({ reply }) => reply(entries([], `t${++serial}`)),
  ],
  "new pages without end": [
    "a list of entries",
    ({ reply }) => reply(entries([entry(++serial), entry(++serial)], `t${serial}`)),
  ],
  "tokens that turn in a circle": [
    "a list of entries",
    ({ reply }, { number }) => reply(entries([entry(++serial)], `t${number % 3}`)),
  ],
  "a token of 1 MB": [
    "a list of entries",
    ({ reply }) => reply(entries([entry(1)], `${++serial}`.padEnd(1e6, "t"))),
  ],
  "a page of 20,000 rows": [
    "a list of entries",
    ({ reply }) => reply(entries(Array.from({ length: 20_000 }, (_, n) => entry(n)), "")),
  ],
  "rows with names of 30 KB": ["a list of entries", ({ reply }) =>
    reply(entries(
      Array.from({ length: 100 }, (_, n) => ({ ...entry(n), RouteEntryName: "n".repeat(3e4) })),
      "",
    ))],
  "a row with 20,000 hops": ["a list of entries", ({ reply }) =>
    reply(entries([{
      ...entry(1),
      NextHops: {
        NextHop: Array.from({ length: 20_000 }, (_, n) => ({ NextHopId: `i-${n}` })),
      },
    }], ""))],
  "interfaces: the same token": [
    "a list of interfaces",
    ({ reply }) => reply(nics([nic("eni-1")], "t")),
  ],
  "interfaces: new tokens without end": [
    "a list of interfaces",
    ({ reply }) => reply(nics([nic(`eni-x${++serial}`)], `t${serial}`)),
  ],
  "vSwitches: the same page of a million": [
    "a list of vSwitches",
    ({ reply }) => reply(vSwitches(["vsw-1", "vsw-2"], 1_000_000)),
  ],
  "vSwitches: new pages of a million": [
    "a list of vSwitches",
    ({ reply }) => reply(vSwitches(["vsw-1", "vsw-2"].map(() => `vsw-${++serial}`), 1_000_000)),
  ],
};

/** Valid answers that junk is made of. */
const SAMPLES: Readonly<Record<string, readonly string[]>> = {
  "a list of entries": [entries([entry(1), entry(2)], "")],
  "a list of interfaces": [nics([nic("eni-1"), nic("eni-2")], "")],
  "a list of vSwitches": [vSwitches(["vsw-1"], 1)],
  "a write": ['{"RequestId":"x"}', '{"Code":"TaskConflict","Message":"m","RequestId":"x"}'],
};

export const campaign: Campaign = {
  summary: "a cloud API that sends too much, too slowly, without end, or junk",
  async run({ long, seed, say, signal }) {
    const violations: string[] = [];
    let worstMs = 0;
    let worstGrowth = 0;
    const note = (title: string, trial: Trial) => {
      worstMs = Math.max(worstMs, trial.tookMs);
      worstGrowth = Math.max(worstGrowth, trial.growthBytes);
      violations.push(...trial.faults.map((fault) => `${title}: ${fault}`));
    };
    // The first call loads the SDK, which is no answer's fault.
    await attempt(ANSWERS["nothing at all"]!, CALLS["a write"]!, signal);
    const calls = { ...CALLS, ...SMALL_CALLS };
    const names = Object.keys(calls);
    for (const [at, [title, attack]] of Object.entries(ANSWERS).entries()) {
      // In the short form each answer goes to two of the calls.
      const some = long ? names : [names[at % names.length]!, names[(at + 3) % names.length]!];
      for (const name of some) {
        note(`${name}, answered with ${title}`, await attempt(attack, calls[name]!, signal));
      }
    }
    say(`answers: the longest call took ${Math.round(worstMs)} ms`);
    for (const [title, [name, attack]] of Object.entries(LISTS)) {
      note(title, await attempt(attack, CALLS[name]!, signal, { maxMs: 30_000 }));
    }
    const random = seededRandom(seed);
    const trials = long ? 40_000 : 600;
    for (const [name, samples] of Object.entries(SAMPLES)) {
      violations.push(...await junk(name, samples, { trials: trials / 4, random, signal }));
    }
    if (violations.length > 0) throw new CampaignFailure("hostile-api", violations);
    return {
      "answers tried": Object.keys(ANSWERS).length,
      "lists tried": Object.keys(LISTS).length,
      "junk answers": trials,
      "longest call (ms)": Math.round(worstMs),
      "largest growth (MiB)": Math.round(worstGrowth / 2 ** 20),
    };
  },
};

/** What came of one use of a hostile server. */
interface Trial {
  readonly tookMs: number;
  readonly growthBytes: number;
  readonly faults: readonly string[];
}

/** Uses a server with one attack, which must end in an error that helps. */
async function attempt(
  attack: Attack,
  use: Use,
  signal: AbortSignal,
  { maxMs = MAX_CALL_MS }: { readonly maxMs?: number } = {},
): Promise<Trial> {
  const faults: string[] = [];
  await using server = serveHostile(attack);
  const before = Deno.memoryUsage().rss;
  let peak = before;
  const sampling = setInterval(() => peak = Math.max(peak, Deno.memoryUsage().rss), 20);
  const startedAt = performance.now();
  try {
    await using rpc = open(server.url);
    const outcome = await Promise.race([
      use({ url: server.url, rpc }, signal).then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      ),
      delay(maxMs * 2, { signal }).then(() => undefined),
    ]);
    signal.throwIfAborted();
    if (outcome === undefined) faults.push(`has not ended after ${maxMs * 2} ms`);
    else if ("error" in outcome) faults.push(...judgeError(outcome.error));
    else faults.push(`was believed: ${JSON.stringify(outcome.value)?.slice(0, 200)}`);
  } finally {
    clearInterval(sampling);
  }
  const tookMs = performance.now() - startedAt;
  const growthBytes = Math.max(peak, Deno.memoryUsage().rss) - before;
  if (tookMs > maxMs) faults.push(`took ${Math.round(tookMs)} ms`);
  if (growthBytes > MAX_GROWTH_BYTES) {
    faults.push(`took ${Math.round(growthBytes / 2 ** 20)} MiB of memory`);
  }
  if (server.requests > MAX_CALLS) faults.push(`took ${server.requests} calls`);
  // The client is closed by now; the server hears of it in a moment.
  for (let tries = 0; server.connections > 0 && tries < 100; tries++) await delay(20, { signal });
  if (server.connections > 0) faults.push(`left ${server.connections} connections open`);
  return { tookMs, growthBytes, faults };
}

/** Answers that are nearly right: each is used or refused by an error of the API's. */
async function junk(
  name: string,
  samples: readonly string[],
  { trials, random, signal }: {
    readonly trials: number;
    readonly random: () => number;
    readonly signal: AbortSignal;
  },
): Promise<string[]> {
  const violations: string[] = [];
  let sent = "";
  await using server = serveHostile(async ({ reply }) => {
    sent = spoil(samples[Math.floor(random() * samples.length)]!, random);
    await reply(sent, random() < 0.2 ? { status: "400 Bad Request" } : {});
  });
  await using rpc = open(server.url);
  for (let n = 0; n < trials; n++) {
    try {
      await CALLS[name]!({ url: server.url, rpc }, signal);
    } catch (error) {
      signal.throwIfAborted();
      const faults = judgeError(error);
      violations.push(
        ...faults.map((fault) => `${name}, answered with ${sent.slice(0, 300)}: ${fault}`),
      );
    }
  }
  return violations;
}

function open(endpoint: string): PopRpc {
  return new PopRpc({
    service: "vpc",
    endpoint: () => Promise.resolve(endpoint),
    apiVersion: "2016-04-28",
    credentials: {
      get: () =>
        Promise.resolve({
          accessKeyId: new Secret("LTAI5tHostileKey01"),
          accessKeySecret: new Secret("hostile-secret-not-to-be-logged"),
        }),
      invalidate: () => false,
    },
    limiter: new RateLimiter({ burst: 100_000, perSecond: 100_000 }),
    connectTimeoutMs: 300,
    timeoutMs: TIMEOUT_MS,
  });
}

/** Whether an error is one that a person can use. */
function judgeError(error: unknown): string[] {
  const text = describeError(error);
  const known = error instanceof AliApiError || error instanceof OperatorError ||
    (error instanceof Error && /^Cannot (read|use) metadata|^Cannot find credentials/.test(text));
  return [
    ...(known ? [] : [`ends in an unknown error: ${Deno.inspect(error).slice(0, 500)}`]),
    ...(text.length > MAX_MESSAGE_CHARS ? [`has a message of ${text.length} characters`] : []),
    // deno-lint-ignore no-control-regex -- hostile text must not reach a terminal
    ...(/[\u0000-\u001f\u007f-\u009f]/.test(text) ? [`has control characters in its message`] : []),
    ...(text.includes("hostile-secret") ? ["shows the secret"] : []),
  ];
}

/** Changes a JSON text in one to three places. */
function spoil(text: string, random: () => number): string {
  const values = ["null", "-1", "1e999", '""', "[]", "{}", '"\\u0000"', "true", '"vtb-1"', "1.5"];
  let spoilt = text;
  for (let n = 1 + Math.floor(random() * 3); n > 0; n--) {
    const at = Math.floor(random() * spoilt.length);
    const draw = random();
    const piece = values[Math.floor(random() * values.length)]!;
    if (draw < 0.4) {
      // A whole value becomes another one.
      const places = [...spoilt.matchAll(/:("[^"]*"|-?[\d.e]+|null|true)/g)];
      const place = places[Math.floor(random() * places.length)];
      if (place === undefined) continue;
      spoilt = spoilt.slice(0, place.index + 1) + piece +
        spoilt.slice(place.index + place[0].length);
    } else if (draw < 0.6) spoilt = spoilt.slice(0, at) + spoilt.slice(at + 1);
    else if (draw < 0.8) {
      spoilt = spoilt.slice(0, at) + String.fromCharCode(Math.floor(random() * 256)) +
        spoilt.slice(at);
    } else if (draw < 0.9) spoilt = spoilt.slice(0, at);
    else spoilt = spoilt.slice(0, at) + piece + spoilt.slice(at);
  }
  return spoilt;
}

async function sendAll(
  send: HostileAnswer["send"],
  parts: readonly (string | Uint8Array)[],
): Promise<void> {
  for (const part of parts) await send(part);
}

/** A head, and then 1 GiB. */
async function sendEndlessly({ send, signal }: HostileAnswer, head: string): Promise<void> {
  await send(head);
  const chunk = new Uint8Array(0x10000).fill(0x20);
  for (let sent = 0; sent < GIB && !signal.aborted; sent += chunk.length) await send(chunk);
}
