import assert from "node:assert/strict";
import { iperf } from "./iperf.ts";
import { openLab } from "./lab.ts";
import { labTest } from "./lab_test_case.ts";
import { startLossProbe } from "./loss_probe.ts";
import { describeLosses, ping, pingMatrix } from "./ping.ts";

labTest("hosts on one segment share a layer 2, in both families", async ({ signal }) => {
  await using lab = await openLab({ signal, topology: "l2", underlay: "dual" });
  assert.equal(describeLosses(await pingMatrix(lab.hosts, { signal, seconds: 3 })), "");
  const [first, second] = lab.hosts;
  for (const address of second!.addresses) {
    const route = await first!.namespace.run("ip", ["route", "get", address], { signal });
    assert.doesNotMatch(route, / via /, "there is no router between them");
  }
  const neighbors = await first!.namespace.run("ip", ["neighbor", "show", second!.address], {
    signal,
  });
  assert.ok(neighbors.includes(second!.identity.port.mac), neighbors);
  await lab.writeConfig({ Network: "10.24.0.0/16" }, { signal });

  await lab.fabric.isolate(second!.identity.port, { signal });
  assert.equal(await ping(first!, second!.address, { signal }), undefined);
  const link = await second!.namespace.run("ip", ["link", "show", "dev", "eth0"], { signal });
  assert.match(link, /LOWER_UP/, "the host does not notice");
  await lab.fabric.heal({ signal });
  assert.notEqual(await ping(first!, second!.address, { signal, seconds: 5 }), undefined);
});

labTest("hosts on several segments meet at a router, also with IPv6 alone", async ({ signal }) => {
  await using lab = await openLab({ signal, topology: "routed", underlay: "v6" });
  assert.equal(describeLosses(await pingMatrix(lab.hosts, { signal, seconds: 3 })), "");
  const [first, second, third] = lab.hosts;
  const routeTo = (address: string) =>
    first!.namespace.run("ip", ["route", "get", address], { signal });
  assert.match(await routeTo(second!.address), / via /);
  assert.doesNotMatch(await routeTo(third!.address), / via /);
  assert.match(lab.etcd.endpoints.join(), /^http:\/\/\[fd00:10::5\]:2379$/);
  await lab.writeConfig({ IPv6Network: "fd00:24::/48" }, { signal });
});

labTest("a host behind NAT is reached by its public address alone", async ({ signal }) => {
  await using lab = await openLab({ signal, topology: "l2", hosts: 2, natHosts: ["host2"] });
  const [first, second] = lab.hosts;
  const outside = second!.identity.outside!.address;
  assert.notEqual(await ping(first!, outside, { signal, seconds: 3 }), undefined);
  assert.equal(await ping(first!, second!.address, { signal }), undefined);
  assert.notEqual(await ping(second!, first!.address, { signal, seconds: 3 }), undefined);
  const seen = await second!.namespace.run("ip", ["route", "get", first!.address], { signal });
  assert.match(seen, /src 192\.168\.77\./);
});

labTest("pods of both families are set up by subnet.env, and measured", async ({ signal }) => {
  await using lab = await openLab({
    signal,
    topology: "l2",
    underlay: "dual",
    hosts: 2,
    etcd: false,
  });
  for (const [index, host] of lab.hosts.entries()) {
    const peer = lab.hosts[1 - index]!;
    await Deno.writeTextFile(
      host.subnetFile,
      `FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=10.24.${index}.1/24\n` +
        `FLANNEL_IPV6_NETWORK=fd00:24::/48\nFLANNEL_IPV6_SUBNET=fd00:24:0:${index}::1/64\n` +
        "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n",
    );
    await host.namespace.ip([
      `route add 10.24.${1 - index}.0/24 via ${peer.addresses[0]}`,
      `route add fd00:24:0:${1 - index}::/64 via ${peer.addresses[1]}`,
    ], { signal });
  }
  await lab.ensurePods(1, { signal });
  const results = await lab.pingPods({ signal, seconds: 3 });
  assert.equal(results.length, 4);
  assert.equal(describeLosses(results), "");
  const [from, to] = lab.hosts.map((host) => host.pods[0]!);
  for (const address of to!.addresses) {
    const { bitsPerSecond } = await iperf(from!, to!, { signal, address });
    assert.ok(bitsPerSecond > 1e6, `${address}: ${bitsPerSecond}`);
    await using probe = await startLossProbe(from!, to!, {
      signal,
      directory: lab.directory,
      address,
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const { sent, lost } = await probe.stop({ signal });
    assert.ok(sent > 50, `${sent} sent`);
    assert.equal(lost, 0);
  }
  await lab.hosts[1]!.namespace.ip(["link set eth0 down"], { signal });
  await assert.rejects(iperf(from!, to!, { signal }), /Cannot send from host1-pod1/);
}, { needs: ["iperf3"] });
