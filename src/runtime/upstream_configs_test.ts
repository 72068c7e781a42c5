/**
 * Configs that upstream flannel v0.28.9 was seen to run with, and what it made of them; ours has to
 * mean the same. Where its own meaning cuts pods off, what ours makes of them is said.
 */
import assert from "node:assert/strict";
import { configureNetwork } from "./configured_network.ts";
import { SILENT } from "../../tests/support/log.ts";

const log = SILENT;

/** The config, the length of subnets, and what the backend is set to. */
const ACCEPTED: readonly (readonly [text: string, length: number, backend: object])[] = [
  // There: an MTU of -50.
  ['{"Network":"N","Backend":{"Type":"vxlan","MTU":0,"Port":0}}', 24, { port: 8472 }],
  [
    '{"Network":"N","SubnetLen":0,"Backend":{"Type":"vxlan","VNI":null,"Port":null,"GBP":null,' +
    '"Learning":null,"DirectRouting":null,"MTU":null}}',
    24,
    { vni: 1, port: 8472, gbp: false, learning: false, directRouting: false },
  ],
  ['{"Network":"N","SubnetLen":25,"subnetlen":null,"Backend":{"Type":"vxlan"}}', 25, { vni: 1 }],
  ['{"Network":"N","Backend":{"Type":"VXLAN"}}', 24, { vni: 1 }],
  ['{"Network":"N","Backend":{"Type":"vxlan","type":null}}', 24, { vni: 1 }],
  [
    '{"Network":"N","Backend":{"Type":"vxlan","Unknown":{"a":[1]}},"Extra":{"Network":1}}',
    24,
    { vni: 1 },
  ],
  ['{"Network":"N","Backend":{"Type":"vxlan","Port":-1}}', 24, { port: 8472 }],
  ['{"Network":"N","Backend":{"Type":"vxlan","VNI":0}}', 24, { vni: 0 }],
  ['{"Network":"N","Backend":{"Type":"vxlan","Name":7,"MacPrefix":"x"}}', 24, { vni: 1 }],
  // There: a port that the kernel draws, which no peer knows.
  ['{"Network":"N","Backend":{"Type":"udp","Port":0}}', 24, { port: 8285 }],
  ['{"Network":"N"}', 24, { port: 8285 }],
  [
    '{"Network":"N","EnableIPv4":null,"EnableIPv6":null,"EnableNFTables":null,' +
    '"IPv6SubnetMin":null,"IPv6SubnetLen":null,"Backend":{"Type":"alloc"}}',
    24,
    {},
  ],
  ['{"network":"N","subnetLEN":25,"BACKEND":{"tyPe":"alloc"}}', 25, {}],
  [
    '{"Network":"0.0.0.0/1","Network":"N","Backend":{"Type":"vxlan"},"Backend":{"Type":"alloc"}}',
    24,
    {},
  ],
  ['{"Network":"N","Backend":{"Type":"host-gw","Name":7,"DNSServerList":[1]}}', 24, {}],
  ['{"Network":"N","Backend":{"Type":"alloc","Port":"x"}}', 24, {}],
  ['{"Network":"N","SubnetLen":30,"Backend":{"Type":"alloc"}}', 30, {}],
  ['{"Network":"N","EnableIPv4":true,"IPv6Network":"N","Backend":{"Type":"alloc"}}', 24, {}],
  [
    '{"Network":"N","IPv6Network":"fd00::/127","IPv6SubnetLen":200,"Backend":{"Type":"alloc"}}',
    24,
    {},
  ],
];

Deno.test("configureNetwork() accepts what upstream accepts, and means the same", () => {
  for (const [text, length, backend] of ACCEPTED) {
    const { network, backend: { config: backendConfig } } = configureNetwork(
      text.replaceAll('"N"', '"10.3.7.9/16"'),
      log,
    );
    assert.equal(String(network.ipv4?.network), "10.3.0.0/16", text);
    assert.equal(network.ipv4?.subnetLength, length, text);
    assert.equal(network.ipv6, undefined, text);
    const config = backendConfig as Record<string, unknown>;
    for (const [name, value] of Object.entries(backend)) assert.equal(config[name], value, text);
    assert.equal(config.mtuBytes, undefined, text);
  }
});
