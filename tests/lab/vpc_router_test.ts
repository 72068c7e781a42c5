import assert from "node:assert/strict";
import { labTest } from "./lab_test_case.ts";
import { openLab } from "./lab.ts";
import type { Lab } from "./lab.ts";
import { describeLosses, ping } from "./ping.ts";
import type { RouterState } from "./vpc_router.ts";

const TABLE = "vtb-by-hand";

/** Gives host n the subnet 10.24.n.0/24 and a pod, without a daemon. */
async function givePods(lab: Lab, options: { signal: AbortSignal }): Promise<void> {
  await Promise.all(lab.hosts.map((host, index) =>
    Deno.writeTextFile(
      host.subnetFile,
      `FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=10.24.${index + 1}.1/24\n` +
        "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n",
    )
  ));
  await lab.ensurePods(1, options);
}

/** One table for all hosts, with a route to the pods of each. */
function routedState(lab: Lab): RouterState {
  return {
    tableOfPort: new Map(lab.hosts.map((host) => [host.identity.port.name, TABLE])),
    routes: lab.hosts.map((host, index) => ({
      tableId: TABLE,
      destination: `10.24.${index + 1}.0/24`,
      port: host.identity.port.name,
    })),
    checkedPorts: new Set(),
  };
}

labTest("hosts of two vSwitches reach each other only through the router", async ({ signal }) => {
  await using lab = await openLab({ signal, etcd: false, cloud: false });
  const [first, second, third] = lab.hosts;
  assert.notEqual(first!.identity.vSwitchId, second!.identity.vSwitchId);
  assert.equal(first!.identity.vSwitchId, third!.identity.vSwitchId);
  for (const from of lab.hosts) {
    for (const to of lab.hosts) {
      assert.notEqual(
        await ping(from, to.address, { signal }),
        undefined,
        `${from.label} → ${to.label}`,
      );
    }
  }
  // Whoever is asked for, the answer to ARP is the router's address.
  const neighbours = await first!.namespace.run("ip", ["-4", "neigh", "show"], { signal });
  const answered = neighbours.trim().split("\n").filter((line) => line.includes("lladdr"));
  assert.ok(answered.length > 0);
  for (const line of answered) assert.match(line, /ee:ff:ff:ff:ff:ff/);
});

labTest("pods reach each other while the route tables say so", async ({ signal }) => {
  await using lab = await openLab({ signal, etcd: false, cloud: false });
  await givePods(lab, { signal });
  const none = await lab.pingPods({ signal });
  assert.ok(none.every(({ milliseconds }) => milliseconds === undefined));

  const state = routedState(lab);
  await lab.router.apply(state, { signal });
  assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");

  // Without the route to the third host's pods, exactly its pairs are lost, both ways.
  await lab.router.apply({ ...state, routes: state.routes.slice(0, 2) }, { signal });
  const lost = (await lab.pingPods({ signal })).filter(({ milliseconds }) =>
    milliseconds === undefined
  );
  assert.deepEqual(
    lost.map(({ from, to }) => [from.label, to.label].includes("host3-pod1")),
    [true, true, true, true],
  );

  // A route whose instance the lab does not have swallows the packets.
  const foreign = { tableId: TABLE, destination: "10.24.3.0/24", port: undefined };
  await lab.router.apply({ ...state, routes: [...state.routes.slice(0, 2), foreign] }, { signal });
  assert.equal(await ping(lab.host("host1").pods[0]!, "10.24.3.2", { signal }), undefined);

  await lab.router.apply(state, { signal });
  assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");
});

labTest("each vSwitch follows the table it is bound to", async ({ signal }) => {
  await using lab = await openLab({ signal, etcd: false, cloud: false });
  await givePods(lab, { signal });
  const [first, second, third] = lab.hosts;
  const state = routedState(lab);
  const away = second!.identity.port.name;
  const bound = new Map(state.tableOfPort).set(away, "vtb-other");
  // The second host's table knows the first host's pods only.
  const other = { ...state.routes[0]!, tableId: "vtb-other" };
  await lab.router.apply(
    { ...state, tableOfPort: bound, routes: [...state.routes, other] },
    { signal },
  );
  assert.notEqual(await ping(second!.pods[0]!, first!.pods[0]!.address, { signal }), undefined);
  assert.equal(await ping(second!.pods[0]!, third!.pods[0]!.address, { signal }), undefined);
  assert.notEqual(await ping(first!.pods[0]!, third!.pods[0]!.address, { signal }), undefined);

  await lab.router.apply(state, { signal });
  assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");
});

labTest(
  "the source/destination check drops pods' packets in both directions",
  async ({ signal }) => {
    await using lab = await openLab({ signal, etcd: false, cloud: false });
    await givePods(lab, { signal });
    const [first, second, third] = lab.hosts;
    const state = routedState(lab);
    await lab.router.apply(
      { ...state, checkedPorts: new Set([first!.identity.port.name]) },
      { signal },
    );
    assert.equal(await ping(first!.pods[0]!, second!.pods[0]!.address, { signal }), undefined);
    const sent = await lab.router.checkDrops({ signal });
    assert.ok(sent > 0, "packets from the pod are dropped on their way out");
    assert.equal(await ping(second!.pods[0]!, first!.pods[0]!.address, { signal }), undefined);
    assert.ok(await lab.router.checkDrops({ signal }) > sent, "packets to the pod are dropped");
    assert.notEqual(await ping(first!, second!.address, { signal }), undefined, "its own address");
    assert.notEqual(await ping(second!.pods[0]!, third!.pods[0]!.address, { signal }), undefined);

    await lab.router.apply(state, { signal });
    assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");
  },
);

labTest("faults lose packets until they are healed", async ({ signal }) => {
  await using lab = await openLab({ signal, etcd: false, cloud: false });
  const [first, second, third] = lab.hosts;
  const services = "100.100.100.200";

  await lab.router.cut(first!.identity.port, second!.identity.port, { signal });
  assert.equal(await ping(first!, second!.address, { signal }), undefined);
  assert.equal(await ping(second!, first!.address, { signal }), undefined);
  assert.notEqual(await ping(first!, third!.address, { signal }), undefined);

  await lab.router.cutServices(third!.identity.port, { signal });
  assert.equal(await ping(third!, services, { signal }), undefined);
  assert.notEqual(await ping(first!, services, { signal }), undefined);
  assert.notEqual(await ping(third!, first!.address, { signal }), undefined);

  await lab.router.isolate(third!.identity.port, { signal });
  assert.equal(await ping(first!, third!.address, { signal }), undefined);

  // Those asked for at the same time all hold.
  await lab.router.heal({ signal });
  const ports = lab.hosts.map(({ identity }) => identity.port);
  await Promise.all(ports.map((port) => lab.router.isolate(port, { signal })));
  const isolated = await lab.router.namespace.run(
    "nft",
    ["list", "set", "inet", "vpc", "isolated"],
    { signal },
  );
  for (const { name } of ports) assert.ok(isolated.includes(`"${name}"`), isolated);

  await lab.router.heal({ signal });
  assert.notEqual(await ping(first!, second!.address, { signal }), undefined);
  assert.notEqual(await ping(third!, services, { signal }), undefined);
});
