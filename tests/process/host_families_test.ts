import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { type Host, type Lab, labTest } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import { askStatus, HEALTH_FLAGS, openAllocLab, startReady } from "./support.ts";

const FLAGS = ["--ip-masq", "--ip-blackhole-route", ...HEALTH_FLAGS];
const IPV6 = { EnableIPv6: true, IPv6Network: "fd00:24::/56" };

/** Gives each host an IPv6 address of the VPC and a default route; returns the addresses. */
async function addIpv6(lab: Lab, options: { signal: AbortSignal }): Promise<string[]> {
  return await Promise.all(lab.hosts.map(async ({ namespace }, index) => {
    const address = `fd00:10::${index + 10}`;
    await namespace.ip([
      `address add ${address}/64 dev eth0 nodad`,
      "route add default via fd00:10::1 dev eth0",
    ], options);
    await namespace.sysctl({ "net/ipv6/conf/all/forwarding": "1" }, options);
    return address;
  }));
}

/** The rules of flanneld in one family, of both modes. */
async function rules(host: Host, family: 4 | 6, options: { signal: AbortSignal }): Promise<string> {
  const saved = await host.namespace.run(family === 4 ? "iptables-save" : "ip6tables-save", [], {
    ...options,
  });
  const table = await host.namespace.try("nft", [
    ...["--stateless", "list", "table", family === 4 ? "ip" : "ip6", `flannel-ipv${family}`],
  ], options);
  return saved.split("\n").filter((line) => /^-A .*FLANNEL/i.test(line)).join("\n") + table.stdout;
}

for (const mode of ["iptables", "nftables"] as const) {
  labTest(
    `dual stack is one lease, one subnet.env and ${mode} rules of both families`,
    async ({ signal }) => {
      await using lab = await openAllocLab({
        signal,
        hosts: 2,
        config: {
          ...IPV6,
          Network: "10.24.0.0/16",
          EnableNFTables: mode === "nftables",
          Backend: { Type: "alloc" },
        },
      });
      await addIpv6(lab, { signal });
      await Promise.all(lab.hosts.map((host) => startReady(host, { signal, flags: FLAGS })));
      const leases = await lab.leases({ signal });
      assert.equal(leases.size, 2);
      for (const host of lab.hosts) {
        const value = `{"PublicIP":"${host.address}","PublicIPv6":null}`;
        const [key] = [...leases].find(([, each]) => each === value) ?? [];
        const match = /^(10\.24\.\d+)\.0-24&(fd00:24:0:[0-9a-f]+)::-64$/.exec(key ?? "");
        assert.ok(match, `${[...leases]}`);
        const [, subnet4, subnet6] = match;
        assert.equal(
          await Deno.readTextFile(host.subnetFile),
          `FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=${subnet4}.1/24\n` +
            `FLANNEL_IPV6_NETWORK=fd00:24::/56\nFLANNEL_IPV6_SUBNET=${subnet6}::1/64\n` +
            "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n",
        );
        for (
          const [family, network, subnet, everybody] of [
            [4, "10.24.0.0/16", `${subnet4}.0/24`, "224.0.0.0/4"],
            [6, "fd00:24::/56", `${subnet6}::/64`, "ff00::/8"],
          ] as const
        ) {
          const text = await rules(host, family, { signal });
          for (const part of [network, subnet, everybody]) assert.ok(text.includes(part), text);
          assert.equal(/iptables|-A FLANNEL/.test(text), mode === "iptables", text);
          const routes = await host.namespace.run(
            "ip",
            [`-${family}`, "route", "show", "proto", "102"],
            { signal },
          );
          assert.match(
            routes.trim(),
            new RegExp(`^blackhole ${RegExp.escape(subnet)} .*metric 4294967295`),
          );
          assert.equal(routes.trim().split("\n").length, 1);
        }
        await eventually(async () => (await askStatus(host, { signal })).status.peers === 1, {
          signal,
          title: "the other host",
        });
      }

      // The same after a restart: with subnet.env, and by the addresses.
      const host = lab.hosts[0]!;
      const text = await Deno.readTextFile(host.subnetFile);
      for (const remove of [false, true]) {
        await host.daemon.stop();
        if (remove) await Deno.remove(host.subnetFile);
        await startReady(host, { signal, flags: FLAGS });
        assert.equal(await Deno.readTextFile(host.subnetFile), text);
      }
      assert.deepEqual(await lab.leases({ signal }), leases);
      await host.namespace.ip([`route flush proto 102`], { signal });
      await host.namespace.run("ip", ["-6", "route", "flush", "proto", "102"], { signal });
      await eventually(async () => {
        const shown = await Promise.all(
          [4, 6].map((family) =>
            host.namespace.run("ip", [`-${family}`, "route", "show", "proto", "102"], { signal })
          ),
        );
        return shown.every((each) => each.startsWith("blackhole"));
      }, { signal, timeoutMs: patient(5_000), title: "both blackhole routes" });
    },
  );
}

labTest("IPv6 alone works: leases, subnet.env, rules, restart and loss", async ({ signal }) => {
  await using lab = await openAllocLab({
    signal,
    hosts: 2,
    config: { ...IPV6, EnableIPv4: false, Backend: { Type: "alloc" } },
  });
  const addresses = await addIpv6(lab, { signal });
  // No IPv4 default route: it is not asked for. etcd stays reachable.
  for (const { namespace, identity: { port } } of lab.hosts) {
    await namespace.ip([
      `route add 10.0.0.0/24 via ${port.gateway} dev eth0`,
      "route del default",
    ], { signal });
  }
  await Promise.all(lab.hosts.map((host) => startReady(host, { signal, flags: FLAGS })));
  const leases = await lab.leases({ signal });
  assert.equal(leases.size, 2);
  for (const [index, host] of lab.hosts.entries()) {
    const value = `{"PublicIP":"0.0.0.0","PublicIPv6":"${addresses[index]}"}`;
    const [key] = [...leases].find(([, each]) => each === value) ?? [];
    const [, subnet] = /^0\.0\.0\.0-0&(fd00:24:0:[0-9a-f]+)::-64$/.exec(key ?? "") ?? [];
    assert.ok(subnet, `${[...leases]}`);
    const text = `FLANNEL_IPV6_NETWORK=fd00:24::/56\nFLANNEL_IPV6_SUBNET=${subnet}::1/64\n` +
      "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n";
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
    assert.ok((await rules(host, 6, { signal })).includes(`${subnet}::/64`));
    assert.equal(await rules(host, 4, { signal }), "");
    await eventually(async () => (await askStatus(host, { signal })).status.peers === 1, {
      signal,
      title: "the other host",
    });
    await host.daemon.stop();
    await Deno.remove(host.subnetFile);
    await startReady(host, { signal, flags: FLAGS });
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
    await lab.etcd.ctl(["del", `/coreos.com/network/subnets/${key}`], { signal });
    await host.daemon.process.waitForLine(/taken back/, { signal, timeoutMs: patient(5_000) });
  }
  assert.deepEqual(await lab.leases({ signal }), leases);
});
