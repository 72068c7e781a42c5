/**
 * The Debian package on a machine with systemd: installed as the guide says, it starts nothing; the
 * service and Docker run from it; an upgrade restarts it; it goes without a trace.
 */
import assert from "node:assert/strict";
import { prepareBuild } from "../../dist/package/build.ts";
import { prepareParts } from "../../dist/package/contents.ts";
import { debianPackage } from "../../dist/package/distributions.ts";
import { imageArchive } from "../../dist/package/image.ts";
import { skippable } from "../prerequisites.ts";
import { ARCHITECTURE, debianObstacle } from "../package/support.ts";
import { compiledBinary } from "../support/compiled_binary.ts";
import { readDocument } from "../support/documents.ts";
import { eventually } from "../support/eventually.ts";
import { Machines, machinesObstacle } from "./machines.ts";

const obstacle = machinesObstacle ?? debianObstacle;

Deno.test({
  name: skippable("an operator installs, upgrades and removes the Debian package", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const signal = AbortSignal.timeout(12 * 60_000);
    const build = await prepareBuild({
      target: Deno.build.arch,
      binary: await compiledBinary(signal),
    });
    await using machines = await Machines.start(1, signal);
    const type = (commands: string) => machines.shell(1, commands);
    const { blocks } = readDocument("docs/install-ecs.md");
    const block = (start: string) => {
      const found = blocks.find(({ text }) => text.startsWith(start));
      assert.ok(found, `docs/install-ecs.md has no block that begins with ${start}`);
      return found.text.replaceAll("10.0.0.5", "10.79.0.1");
    };
    const name = `flanneld_${build.version}_${ARCHITECTURE}.deb`;
    const put = async (bytes: Uint8Array, target: string) => {
      const path = await Deno.makeTempFile();
      await Deno.writeFile(path, bytes);
      await machines.put(1, path, target);
      await Deno.remove(path);
    };
    await put(debianPackage(build, await prepareParts(build)), `/root/${name}`);
    await type(
      "sed -i s/127.0.0.1/10.79.0.1/ /etc/default/etcd\n" +
        "echo 'ETCD_LISTEN_CLIENT_URLS=\"http://10.79.0.1:2379\"' >> /etc/default/etcd\n" +
        "echo 'ETCD_ADVERTISE_CLIENT_URLS=\"http://10.79.0.1:2379\"' >> /etc/default/etcd\n" +
        "systemctl restart etcd\n" +
        "ETCDCTL_API=3 etcdctl --endpoints=http://10.79.0.1:2379 put /coreos.com/network/config " +
        `'{"Network":"10.24.0.0/16","Backend":{"Type":"vxlan"}}'`,
    );
    await type(block("echo net.ipv4.ip_forward"));

    await type(block("apt-get install ./"));
    const state = "systemctl is-enabled flanneld || :; systemctl is-active flanneld || :";
    assert.equal(await type(state), "disabled\ninactive\n");

    await type(block("echo 'FLANNELD_ETCD_ENDPOINTS"));
    assert.equal(await type("systemctl is-active flanneld"), "active\n");
    await type(
      "install -D -m 644 /usr/share/flanneld/docker-flannel.conf " +
        "/etc/systemd/system/docker.service.d/flannel.conf\n" +
        "systemctl daemon-reload; systemctl restart docker",
    );
    const [, subnet] = /FLANNEL_SUBNET=(\S+)/.exec(await type("cat /run/flannel/subnet.env"))!;
    assert.ok((await type("ip -br addr show docker0")).includes(` ${subnet} `));

    // Both programs read the image, and run what is in it.
    const image = await imageArchive(build);
    await put(image.archive, "/root/image.tar");
    await type(
      "docker load --input=image.tar; ctr images import --snapshotter=native image.tar",
    );
    for (
      const start of [
        `docker run --rm --read-only ${image.name}`,
        `ctr run --rm --snapshotter=native ${image.name} flanneld /usr/bin/flanneld`,
      ]
    ) assert.match(await type(`${start} --version`), /^flanneld \d/);

    // The same version again is an upgrade to dpkg.
    const processId = () => type("systemctl show -P MainPID flanneld");
    const before = await processId();
    await type(`dpkg --install ${name}`);
    await eventually(
      async () =>
        await processId() !== before &&
        await type("systemctl is-active flanneld || :") === "active\n",
      { signal, timeoutMs: 60_000, title: "the restart by the upgrade" },
    );
    assert.match(await type("cat /etc/flanneld.env"), /^FLANNELD_IP_MASQ=true$/m);
    assert.ok((await type("cat /run/flannel/subnet.env")).includes(`FLANNEL_SUBNET=${subnet}\n`));

    await type("apt-get purge -y flanneld");
    assert.equal(await type("systemctl is-active flanneld || :"), "inactive\n");
    assert.equal(await type("systemctl is-active docker"), "active\n");
    assert.match(await type("ip -br link show flannel.1"), /^flannel\.1 /, "traffic goes on");
    const left = await type("find /etc /usr -name '*flanneld*' -not -path '*docker.service.d*'");
    assert.equal(left, "/etc/sysctl.d/90-flanneld.conf\n", "what the operator has made");
  },
});
