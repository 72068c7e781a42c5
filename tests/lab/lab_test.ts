import assert from "node:assert/strict";
import { describeLosses, ping } from "./ping.ts";
import { openLab } from "./lab.ts";
import { labTest } from "./lab_test_case.ts";
import { REGION_ID, SYSTEM_TABLE_ID } from "./plan.ts";
import { eventually } from "../support/eventually.ts";
import type { Host } from "./host.ts";

/** A GET as a program on the host makes it; the body of the answer. */
async function get(host: Host, url: string, signal: AbortSignal): Promise<string> {
  const script = `await Deno.stdout.write(await (await fetch(Deno.args[0])).bytes())`;
  return await host.namespace.run(Deno.execPath(), ["eval", script, url], { signal });
}

labTest("hosts find the metadata of their own instance", async ({ signal }) => {
  await using lab = await openLab({ signal, etcd: false });
  const metadata = "http://100.100.100.200/latest/meta-data";
  for (const host of lab.hosts) {
    assert.equal(await get(host, `${metadata}/instance-id`, signal), host.identity.instanceId);
    assert.equal(await get(host, `${metadata}/region-id`, signal), REGION_ID);
    const mac = await get(host, `${metadata}/mac`, signal);
    const link = await host.namespace.run("ip", ["link", "show", "dev", "eth0"], { signal });
    assert.ok(link.includes(`link/ether ${mac} `), `${link} has ${mac}`);
  }
  const { body, error } = JSON.parse(
    await lab.hosts[0]!.namespace.run(Deno.execPath(), [
      "eval",
      `const r = await fetch("http://100.100.0.10/?Action=DescribeVpcs");
       console.log(JSON.stringify({ body: await r.json() }));`,
    ], { signal }),
  );
  assert.equal(error, undefined);
  assert.equal(typeof body.Code, "string", "the API answers an unsigned call with an error");
});

labTest("the router follows the cloud's route entries and checks", async ({ signal }) => {
  await using lab = await openLab({ signal, etcd: false });
  const { control } = lab.cloud;
  await Promise.all(lab.hosts.map(async (host, index) => {
    const subnet = `10.24.${index + 1}`;
    await Deno.writeTextFile(
      host.subnetFile,
      `FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=${subnet}.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n`,
    );
    await control.addRoute(SYSTEM_TABLE_ID, {
      destination: `${subnet}.0/24`,
      nextHops: [{ type: "Instance", id: host.identity.instanceId }],
    });
  }));
  await lab.ensurePods(2, { signal });
  await lab.cloud.inForce({ signal });
  const checked = await lab.pingPods({ signal });
  const between = checked.filter(({ from, to }) => from.label.slice(0, 5) !== to.label.slice(0, 5));
  assert.equal(between.length, 24);
  assert.ok(between.every(({ milliseconds }) => milliseconds === undefined), "the check is on");

  for (const host of lab.hosts) {
    await control.setSourceDestCheck(host.identity.instanceId, false);
  }
  await lab.cloud.inForce({ signal });
  assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");

  const [first, second, third] = lab.hosts;
  const place = { routeTableId: SYSTEM_TABLE_ID, destination: "10.24.2.0/24" };
  await control.deleteRoute(place);
  await lab.cloud.inForce({ signal });
  assert.equal(await ping(first!.pods[0]!, second!.pods[0]!.address, { signal }), undefined);

  await control.addRoute(SYSTEM_TABLE_ID, {
    destination: place.destination,
    nextHops: [{ type: "Instance", id: third!.identity.instanceId }],
  });
  await control.repointRoute(place, second!.identity.instanceId);
  await lab.cloud.inForce({ signal });
  assert.notEqual(await ping(first!.pods[0]!, second!.pods[0]!.address, { signal }), undefined);

  await control.setInstance(second!.identity.instanceId, { status: "Stopped" });
  await lab.cloud.inForce({ signal });
  assert.equal(await ping(first!.pods[0]!, second!.pods[0]!.address, { signal }), undefined);
});

labTest("etcd survives being killed, stopped and cut off", async ({ signal }) => {
  await using lab = await openLab({ signal, hosts: 1, cloud: false, etcd: { members: 3 } });
  await lab.writeConfig({ Network: "10.24.0.0/16" }, { signal });
  await lab.etcd.put("/coreos.com/network/subnets/10.24.7.0-24", "{}", { signal });
  assert.deepEqual([...await lab.leases({ signal })], [["10.24.7.0-24", "{}"]]);

  await lab.etcd.members[0]!.kill();
  await eventually(
    () => lab.etcd.put("/x", "written without the first member", { signal }).then(() => true),
    { signal, title: "two members of three to serve" },
  );
  await lab.etcd.start({ signal });
  assert.match(await lab.etcd.members[0]!.ctl(["get", "/x"], { signal }), /without the first/);

  const [host] = lab.hosts;
  const cutOff = lab.etcd.members[1]!;
  assert.notEqual(await ping(host!, cutOff.port.address, { signal }), undefined);
  await lab.router.cut(host!.identity.port, cutOff.port, { signal });
  assert.equal(await ping(host!, cutOff.port.address, { signal }), undefined);
  await lab.router.heal({ signal });

  const revision = await lab.etcd.compact({ signal });
  const old = await lab.etcd.ctl(["get", "/x", "--rev=1"], { signal }).catch(String);
  assert.match(old, /compacted/, `revision 1 is gone after compaction at ${revision}`);
});

labTest("etcd serves the v2 API where that is asked for", async ({ signal }) => {
  await using lab = await openLab({ signal, hosts: 1, cloud: false, etcd: { v2: true } });
  await lab.writeConfig({ Network: "10.24.0.0/16" }, { signal, api: 2 });
  const text = await lab.etcd.ctl(["get", "/coreos.com/network/config"], { signal, api: 2 });
  assert.equal(text.trim(), `{"Network":"10.24.0.0/16"}`);
  const body = await get(
    lab.hosts[0]!,
    `${lab.etcd.endpoints[0]}/v2/keys/coreos.com/network/config`,
    signal,
  );
  assert.equal(JSON.parse(body).node.value, `{"Network":"10.24.0.0/16"}`);
  assert.equal((await lab.leases({ signal })).size, 0, "v2 keys are not in the v3 store");
});
