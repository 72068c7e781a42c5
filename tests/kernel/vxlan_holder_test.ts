/**
 * A VXLAN device that the kernel refuses, against the real kernel: who is in the way is named, and
 * once that is gone the device is made.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createLinkTable } from "../../src/kernel/link_table.ts";
import { openNetlink } from "../../src/kernel/netlink/rtnetlink.ts";
import { eventually } from "../support/eventually.ts";
import { openNamespaces } from "../support/namespace.ts";
import { vxlanLink } from "../support/links.ts";

const DESIRED = vxlanLink("10.0.0.1");

const holders: [title: string, link: string | undefined, named: RegExp][] = [
  [
    "a device with the VNI",
    "cilium_vxlan type vxlan id 1 dstport 8472 dev eth0",
    /^Cannot add link flannel\.1: VXLAN device cilium_vxlan holds VNI 1 at UDP port 8472.*"ip link delete cilium_vxlan"/,
  ],
  [
    "a device for every VNI at the port",
    "cilium_vxlan type vxlan external dstport 8472",
    /VXLAN device cilium_vxlan holds UDP port 8472/,
  ],
  [
    "a device of another kind at the port",
    "other type vxlan id 2 dstport 8472 gbp",
    /VXLAN device other holds UDP port 8472/,
  ],
  ["a process at the port", undefined, /process deno \(pid \d+\) holds UDP port 8472.*or stop it/],
];

for (const [title, link, named] of holders) {
  Deno.test(`who holds what a VXLAN device needs is named: ${title}`, async () => {
    const { signal } = new AbortController();
    await using set = await openNamespaces({ signal });
    const [host] = await set.add(["host"], { signal });
    await host!.ip([
      "link add eth0 type veth peer name peer0",
      "addr add 10.0.0.1/24 dev eth0",
      "link set peer0 up",
      "link set eth0 up",
      ...(link ? [`link add ${link}`, `link set ${link.split(" ")[0]} up`] : []),
    ], { signal });
    const args = [
      "eval",
      'import { createSocket } from "node:dgram"; const socket = createSocket("udp4");' +
      'socket.bind(8472, "10.0.0.1", () => console.log("ready"));',
    ];
    const { program, args: words } = host!.command(Deno.execPath(), args);
    await using stack = new AsyncDisposableStack();
    let stop = () => host!.ip(["link delete " + link?.split(" ")[0]], { signal });
    if (!link) {
      const child = new Deno.Command(program, { args: words, stdout: "piped" }).spawn();
      const reader = child.stdout.getReader();
      await reader.read();
      stop = async () => {
        child.kill("SIGKILL");
        await reader.cancel();
        await child.status;
      };
    }
    const netlink = stack.use(openNetlink({ namespace: `/run/netns/${host!.name}` }));
    const table = createLinkTable(netlink, { ownsLink: (name) => name === "flannel.1" });
    const change = { op: "add", desired: DESIRED } as const;
    const [failed] = await table.apply([change], { signal });
    try {
      // `ss` looks into the namespace that it runs in, which in a test is another one.
      const seen = link ? named : /a process holds UDP port 8472|process deno/;
      assert.match(failed?.error.message ?? "nothing failed", seen);
    } finally {
      await stop();
    }
    await eventually(async () => (await table.apply([change], { signal })).length === 0, {
      signal,
      title: "the device to be made once nobody is in the way",
    });
  });
}
