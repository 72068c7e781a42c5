import assert from "node:assert/strict";
import { Prefix } from "../net/mod.ts";
import { isClosedByDocker } from "./docker.ts";
import { parseDump } from "./iptables_dump.ts";

const NETWORKS = [Prefix.parse("10.24.0.0/16")];
const INTERFACES = [
  { name: "lo", address: "127.0.0.1" },
  { name: "docker0", address: "10.24.7.1" },
  { name: "br-0123456789ab", address: "172.18.0.1" },
  { name: "docker0", address: "fe80::1" },
];

const CASES: [name: string, rules: string, closed: boolean][] = [
  ["the bridge of the subnet", "-A DOCKER ! -i docker0 -o docker0 -j DROP", true],
  ["another bridge", "-A DOCKER ! -i br-0123456789ab -o br-0123456789ab -j DROP", false],
  ["a bridge that is open to all", "-A DOCKER ! -i docker0 -o docker0 -j ACCEPT", false],
  [
    "a published port",
    "-A DOCKER -d 10.24.7.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j DROP",
    false,
  ],
  ["what leaves the bridge", "-A DOCKER -i docker0 ! -o docker0 -j DROP", false],
];

for (const [name, rules, closed] of CASES) {
  Deno.test(`isClosedByDocker(): ${name}`, () => {
    const text = (chains: string) => `*filter\n${chains}:DOCKER - [0:0]\n${rules}\nCOMMIT\n`;
    const dump = parseDump(text(":DOCKER-USER - [0:0]\n"));
    assert.equal(isClosedByDocker(dump, NETWORKS, () => INTERFACES), closed);
    assert.equal(isClosedByDocker(dump, [], () => INTERFACES), false);
    assert.equal(isClosedByDocker(parseDump(text("")), NETWORKS, () => INTERFACES), false);
  });
}
