import assert from "node:assert/strict";
import { encodeLeaseKey } from "../../src/lease/codec.ts";
import { Address, InterfaceAddress, Prefix } from "../../src/net/mod.ts";
import type { Host } from "./host.ts";
import { ETCD_PREFIX, type Lab } from "./lab.ts";

/** Which upstream release a node is like. */
export type UpstreamVersion = "v0.14" | "v0.28";

/**
 * A host without our daemon that does by hand what an upstream one does with vxlan: the device,
 * the lease byte for byte, and for each peer's lease the objects that upstream makes. Families are
 * in the order of `subnets`.
 */
export class UpstreamVxlanNode {
  readonly host: Host;
  readonly version: UpstreamVersion;
  readonly subnets: readonly Prefix[];
  readonly #networks: readonly string[];
  readonly #lab: Lab;
  #macs: string[] = [];

  constructor(
    lab: Lab,
    host: Host,
    options: {
      readonly version: UpstreamVersion;
      readonly subnets: readonly string[];
      /** The whole networks, in the order of `subnets`. */
      readonly networks: readonly string[];
    },
  ) {
    this.#lab = lab;
    this.host = host;
    this.version = options.version;
    this.subnets = options.subnets.map(Prefix.parse);
    this.#networks = options.networks;
  }

  get key(): string {
    const [ipv4, ipv6] = [4, 6].map((family) =>
      this.subnets.find((each) => each.family === family)
    );
    return encodeLeaseKey({ ...(ipv4 ? { ipv4 } : {}), ...(ipv6 ? { ipv6 } : {}) });
  }

  /** Makes the devices, the lease and subnet.env, and a pod. */
  async join(options: { readonly signal: AbortSignal }): Promise<void> {
    const { host, subnets } = this;
    await host.namespace.ip(
      subnets.flatMap(({ family, address }, index) => {
        const link = upstreamLink(family);
        return [
          `link add ${link} mtu 1450 type vxlan id 1 dev eth0 local ${host.addresses[index]} ` +
          "dstport 8472 nolearning",
          `address add ${address}/${family === 4 ? 32 : 128} dev ${link}`,
          `link set ${link} up`,
        ];
      }),
      options,
    );
    this.#macs = await Promise.all(
      subnets.map(({ family }) => macOf(host, upstreamLink(family), options)),
    );
    await this.#writeLease(options);
    await Deno.writeTextFile(
      host.subnetFile,
      subnets.map((subnet, index) => {
        const name = subnet.family === 4 ? "FLANNEL" : "FLANNEL_IPV6";
        const own = new InterfaceAddress(subnet.address.add(1n), subnet.length);
        return `${name}_NETWORK=${this.#networks[index]}\n${name}_SUBNET=${own}\n`;
      }).join("") + "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
    );
    await host.ensurePods(1, options);
  }

  /** What this version writes under {@linkcode key}. */
  value(): string {
    const data = (mac: string) => `{"VNI":1,"VtepMAC":"${mac}"}`;
    const { addresses } = this.host;
    const of = (family: number) => this.subnets.findIndex((each) => each.family === family);
    const [v4, v6] = [of(4), of(6)];
    const publicIp = `"PublicIP":"${v4 < 0 ? "0.0.0.0" : addresses[v4]}"`;
    const publicIpv6 = this.version === "v0.14"
      ? []
      : [`"PublicIPv6":${v6 < 0 ? "null" : `"${addresses[v6]}"`}`];
    return `{${
      [
        publicIp,
        ...publicIpv6,
        '"BackendType":"vxlan"',
        ...(v4 < 0 ? [] : [`"BackendData":${data(this.#macs[v4]!)}`]),
        ...(v6 < 0 ? [] : [`"BackendV6Data":${data(this.#macs[v6]!)}`]),
      ].join(",")
    }}`;
  }

  /** Makes the objects of every other lease in the store, as an upstream daemon does on an event. */
  async followPeers(options: { readonly signal: AbortSignal }): Promise<void> {
    for (const [key, value] of await this.#leases(options)) {
      if (key !== this.key) await this.#addPeer(key, value, options);
    }
  }

  async #addPeer(
    key: string,
    text: string,
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    // What upstream's Go structures take: exactly these names.
    const lease = JSON.parse(text);
    assert.equal(lease.BackendType, "vxlan");
    const commands: string[] = [];
    const fdb: string[] = [];
    for (const part of key.split("&")) {
      const subnet = Prefix.parse(part.replace("-", "/"));
      if (!this.subnets.some(({ family }) => family === subnet.family)) continue;
      const [address, data] = subnet.family === 4
        ? [lease.PublicIP, lease.BackendData]
        : [lease.PublicIPv6, lease.BackendV6Data];
      assert.match(data.VtepMAC, /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
      assert.ok(Address.parse(address));
      const dev = upstreamLink(subnet.family);
      commands.push(
        `neighbor replace ${subnet.address} lladdr ${data.VtepMAC} dev ${dev} nud permanent`,
        `route replace ${subnet} via ${subnet.address} dev ${dev} onlink`,
      );
      fdb.push(`fdb replace ${data.VtepMAC} dev ${dev} dst ${address} self permanent`);
    }
    await this.host.namespace.ip(commands, options);
    await this.host.namespace.run("bridge", ["-batch", "-"], {
      ...options,
      stdin: fdb.join("\n") + "\n",
    });
  }

  async #leases(options: { readonly signal: AbortSignal }): Promise<ReadonlyMap<string, string>> {
    if (this.version === "v0.28") return await this.#lab.leases(options);
    const directory = `${ETCD_PREFIX}/subnets`;
    const keys = (await this.#lab.etcd.ctl(["ls", directory], { ...options, api: 2 })).trim();
    const entries = await Promise.all(
      keys.split("\n").map(async (key) =>
        [
          key.slice(directory.length + 1),
          (await this.#lab.etcd.ctl(["get", key], { ...options, api: 2 })).trim(),
        ] as const
      ),
    );
    return new Map(entries);
  }

  async #writeLease(options: { readonly signal: AbortSignal }): Promise<void> {
    const { etcd } = this.#lab;
    const key = `${ETCD_PREFIX}/subnets/${this.key}`;
    if (this.version === "v0.14") {
      await etcd.ctl(["set", "--ttl", "86400", key, this.value()], { ...options, api: 2 });
      return;
    }
    const granted = await etcd.ctl(["lease", "grant", "86400"], options);
    const lease = /^lease ([0-9a-f]+) granted/.exec(granted)![1]!;
    await etcd.ctl(["put", `--lease=${lease}`, key, this.value()], options);
  }
}

function upstreamLink(family: number): string {
  return family === 4 ? "flannel.1" : "flannel-v6.1";
}

/** The MAC address of a link. */
export async function macOf(
  host: Host,
  link: string,
  options: { readonly signal: AbortSignal },
): Promise<string> {
  const text = await host.namespace.run("ip", ["-j", "link", "show", "dev", link], options);
  return JSON.parse(text)[0].address;
}
