/**
 * Keys, roles, rights and metadata, from a host's point of view.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Host } from "../lab/mod.ts";
import type { CloudConfig } from "../simulator/config.ts";
import { eventually } from "../support/eventually.ts";
import { linesOf } from "./support.ts";
import {
  assertRightRoutes,
  callsSince,
  lastWords,
  openCloudLab,
  ownCluster,
  ownLeases,
  type Scenario,
  statusSays,
  together,
  writesAmong,
} from "./cloud_support.ts";

/** What the policy of docs/install-ecs.md allows, as far as it is needed here. */
const NEEDED = [
  "vpc:DescribeVpcAttribute",
  "vpc:DescribeVSwitchAttributes",
  "vpc:DescribeRouteTableList",
  "vpc:DescribeRouteEntryList",
  "vpc:CreateRouteEntry",
  "vpc:ModifyRouteEntry",
  "vpc:DeleteRouteEntry",
  "ecs:DescribeNetworkInterfaces",
  "ecs:ModifyNetworkInterfaceAttribute",
];
/** Without these no route can be made. */
const INDISPENSABLE = NEEDED.slice(0, 5);

const SECRET = "a-secret-of-forty-characters-for-testing";
const keyOf = (action: string) => `LTAI5tWithout${action.replace(/\W/g, "")}`;

function withKeys(config: CloudConfig): CloudConfig {
  return {
    ...config,
    accessKeys: [
      ...config.accessKeys ?? [],
      { id: "LTAI5tDisabled000001", secret: SECRET, active: false },
      { id: "LTAI5tPlain000000001", secret: SECRET, allow: NEEDED },
      ...NEEDED.map((action) => ({
        id: keyOf(action),
        secret: SECRET,
        allow: NEEDED.filter((each) => each !== action),
      })),
    ],
  };
}

/** Each fault of keys and metadata is named, and what time can mend is waited out. */
export async function tryCredentials(options: { readonly signal: AbortSignal }): Promise<void> {
  const { signal } = options;

  const key = (id: string) => ({ ACCESS_KEY_ID: id, ACCESS_KEY_SECRET: SECRET });
  /** On a host that is to write its route itself, as nobody else is there. */
  const start = async (host: Host, env: Record<string, string>) =>
    await host.startDaemon({ env, flags: await ownCluster(lab, host, { signal }) });
  const refused = (env: Record<string, string>, ...says: RegExp[]): Scenario => async (host) => {
    const words = await lastWords(await start(host, env), { signal });
    for (const pattern of says) assert.match(words, pattern);
    assert.deepEqual(writesAmong(await callsSince(lab, 0, host)), []);
  };
  /** The same, after a fault that befalls this host alone. */
  const struck = (
    action: string,
    effect: { kind: "error"; status: number; code?: string },
    ...says: RegExp[]
  ): Scenario =>
  async (host) => {
    await control.addFault({ match: { action, source: host.address }, effect });
    await refused(key("LTAI5tPlain000000001"), ...says)(host);
  };
  const ready = new Set<Host>();
  const scenarios: Record<string, Scenario> = {
    "a wrong secret": refused(
      { ACCESS_KEY_SECRET: "of-another-key" },
      /AccessKeySecret does not belong to this AccessKeyID/,
    ),
    "a disabled key": refused(key("LTAI5tDisabled000001"), /AccessKey is wrong, disabled or/),
    "an unknown key": refused(key("LTAI5tUnknown0000001"), /AccessKey is wrong, disabled or/),
    "a token of another key": refused(
      {
        ACCESS_KEY_ID: "",
        ACCESS_KEY_SECRET: "",
        ALIBABA_CLOUD_ACCESS_KEY_ID: "LTAI5tPlain000000001",
        ALIBABA_CLOUD_ACCESS_KEY_SECRET: SECRET,
        ALIBABA_CLOUD_SECURITY_TOKEN: "CAISnotofthiskey",
      },
      /security token has expired or does not belong to the AccessKeyID/,
    ),
    "no credentials": refused(
      { ACCESS_KEY_ID: "", ACCESS_KEY_SECRET: "" },
      /backend config: .*ACCESS_KEY_ID.* not set; ALIBABA_CLOUD_ACCESS_KEY_ID.*RRSA.*no RAM role/,
    ),
    "a clock that is off": struck(
      "Describe*",
      { kind: "error", status: 400, code: "InvalidTimeStamp.Expired" },
      /this host's clock is off by more than 15 minutes; set it/,
    ),
    "a host outside any VPC": struck(
      "GET /latest/meta-data/vpc-id",
      { kind: "error", status: 404 },
      /not in a VPC/,
    ),
    ...Object.fromEntries(
      INDISPENSABLE.map((action) => [
        `${action} denied`,
        refused(key(keyOf(action)), new RegExp(`Cannot call ${action}: .* allow ${action} in`)),
      ]),
    ),
    "the check may not be read": async (host) => {
      const daemon = await start(host, key(keyOf("ecs:DescribeNetworkInterfaces")));
      await daemon.ready({ signal });
      const [warning] = linesOf(daemon, /RAM denies ecs:DescribeNetworkInterfaces/);
      assert.match(warning ?? "", / WARN .*"SourceDestCheck": "ignore"/);
      ready.add(host);
    },
    "the check may not be switched off": async (host) => {
      const env = key(keyOf("ecs:ModifyNetworkInterfaceAttribute"));
      const daemon = await start(host, env);
      // The host waits for the writer's look first.
      const told = await statusSays(daemon, /RAM denies ecs:Modify/, { signal, timeoutMs: 90_000 });
      assert.match(told, /Either allow .*; or switch it off once in the console \(ECS > /);
      assert.ok(told.includes(host.identity.networkInterfaceId), told);
      await eventually(
        async () =>
          (await control.snapshot()).forwarding.some((each) =>
            each.instanceId === host.identity.instanceId
          ),
        { signal, title: "the route all the same" },
      );
      assert.equal(daemon.isReady(), false, "packets of pods are still dropped");
      await control.setSourceDestCheck(host.identity.instanceId, false);
      await daemon.ready({ signal });
      ready.add(host);
    },
    "the SDK's names": async (host) => {
      const daemon = await start(host, {
        ACCESS_KEY_ID: "",
        ACCESS_KEY_SECRET: "",
        ALIBABA_CLOUD_ACCESS_KEY_ID: "LTAI5tPlain000000001",
        ALIBABA_CLOUD_ACCESS_KEY_SECRET: SECRET,
      });
      await daemon.ready({ signal });
      const calls = await callsSince(lab, 0, host);
      assert.ok(calls.every(({ accessKeyId }) => accessKeyId === "LTAI5tPlain000000001"));
      ready.add(host);
    },
    "metadata that is silent at first": async (host) => {
      const silence = await control.addFault({
        match: { service: "metadata", source: host.address },
        effect: { kind: "hang" },
      });
      const daemon = await start(host, key("LTAI5tPlain000000001"));
      await statusSays(daemon, /Cannot read metadata .* no answer/, { signal });
      await control.removeFault(silence);
      await daemon.ready({ signal });
      const said = linesOf(daemon, /metadata/);
      assert.equal(said.length, 1, said.join("\n"));
      assert.match(said[0]!, / WARN .*may be no ECS instance of a VPC.*; trying again/);
      ready.add(host);
    },
  };
  await using lab = await openCloudLab({
    signal,
    hosts: Object.keys(scenarios).length,
    cloud: { customise: withKeys },
  });
  const { control } = lab.cloud;
  await together(lab, scenarios);
  await assertRightRoutes(lab, [...ready]);
  for (const host of lab.hosts) {
    const { size } = await ownLeases(lab, host, { signal });
    assert.equal(size, ready.has(host) ? 1 : 0, `${host.label}: who gave up has left no lease`);
  }
}
