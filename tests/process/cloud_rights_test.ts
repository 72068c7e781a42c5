/** A cluster in which few hosts may write routes. */
import assert from "node:assert/strict";
import { type Host, labTest } from "../lab/mod.ts";
import {
  assertRightRoutes,
  brisk,
  callsSince,
  countCalls,
  healed,
  mark,
  openCloudLab,
  statusSays,
} from "./cloud_support.ts";
import { askHealth, askStatus, HEALTH_FLAGS, linesOf } from "./support.ts";

const NO_KEYS = { ACCESS_KEY_ID: "", ACCESS_KEY_SECRET: "" };
const POWERLESS = {
  id: "LTAI5tMayDoNothing01",
  secret: "a-secret-of-forty-characters-for-testing",
};

labTest("hosts without any right are ready as long as one has written their routes", async (
  { signal },
) => {
  await using lab = await openCloudLab({
    signal,
    hosts: 4,
    config: brisk(),
    cloud: {
      behaviour: { delays: { minMs: 50, maxMs: 300 } },
      customise: (config) => ({
        ...config,
        accessKeys: [...config.accessKeys ?? [], { ...POWERLESS, allow: [] }],
      }),
    },
  });
  const [first, writer, second, powerless] = lab.hosts as [Host, Host, Host, Host];
  const never = {
    flags: [...HEALTH_FLAGS, "--ali-route-writer=never"],
    env: NO_KEYS,
  };
  const waiting = await first.startDaemon(never);
  await statusSays(waiting, /cloud: no host writes the routes of the cluster.*RAM policy/, {
    signal,
  });
  assert.equal(waiting.isReady(), false);
  assert.equal((await lab.leases({ signal })).size, 1, "its lease says whom to write a route to");

  await (await writer.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
  await waiting.ready({ signal });
  await (await second.startDaemon(never)).ready({ signal });
  const env = { ACCESS_KEY_ID: POWERLESS.id, ACCESS_KEY_SECRET: POWERLESS.secret };
  await (await powerless.startDaemon({ flags: HEALTH_FLAGS, env })).ready({ signal });
  await assertRightRoutes(lab);
  const { networkInterfaces } = await lab.cloud.control.snapshot();
  for (const host of lab.hosts) {
    const found = networkInterfaces.find(({ id }) => id === host.identity.networkInterfaceId);
    assert.equal(found?.sourceDestCheck, false, `${host.label}: the writer has switched it off`);
  }
  for (const host of [first, second, powerless]) {
    assert.equal(countCalls(await callsSince(lab, 0, host)), "", `${host.label} makes no call`);
    assert.deepEqual(linesOf(host.daemon, / (WARN|ERROR) /).filter(isUnexpected), []);
  }

  // The one that is elected cannot lead: it says why, and nobody suffers.
  await writer.daemon.stop();
  const line = await powerless.daemon.process.waitForLine(/Cannot act as the route leader/, {
    signal,
  });
  assert.match(line, / WARN .* allow vpc:\w+ in the RAM policy .*leaving it to another host/);
  const from = await mark(lab);
  await lab.cloud.inForce({ signal });
  for (const host of [first, second, powerless]) {
    assert.equal((await askHealth(host, "/readyz", { signal })).status, 200, host.label);
    const { cloud } = (await askStatus(host, { signal })).status;
    assert.equal(cloud.role, "host", host.label);
  }
  await (await writer.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
  await Promise.all(lab.hosts.map((host) => healed(lab, host, { signal })));
  const sources = new Set((await callsSince(lab, from)).map(({ source }) => source));
  assert.deepEqual([...sources], [writer.address]);
});

/** While nobody wrote routes, the first host has rightly said so. */
function isUnexpected(line: string): boolean {
  return !/Not ready: cloud: (?:no host writes|the route leader)/.test(line);
}
