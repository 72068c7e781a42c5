/**
 * What the documents tell an operator to type, typed on two machines with systemd and Docker: the
 * installation, Docker, an upgrade, a switch to the tutorial's options.env, users of etcd, and the
 * removal. Only addresses, the backend (no cloud here) and the image's name (no registry) differ.
 */
import assert from "node:assert/strict";
import { skippable } from "../prerequisites.ts";
import { SHELL_BLOCKS } from "../shell_blocks.ts";
import { compiledBinary } from "../support/compiled_binary.ts";
import { codeSpans, firstCommand, readDocument } from "../support/documents.ts";
import { eventually } from "../support/eventually.ts";
import { Machines, machinesObstacle as obstacle } from "./machines.ts";

const THIS_FILE = "tests/machine/documents_test.ts";
Deno.test({
  name: skippable("an operator who types what the documents say gets there, and back", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const signal = AbortSignal.timeout(10 * 60_000);
    const binary = await compiledBinary(signal);
    await using machines = await Machines.start(2, signal);
    const typed = new Set<string>();
    /** Types the block of `document` that begins with `start` on machine `m`. */
    const type = async (
      m: number,
      document: string,
      start: string,
      change = (text: string) => text,
    ): Promise<string> => {
      const name = `docs/${document}.md`;
      const block = readDocument(name).blocks.find(({ language, text }) =>
        language === "sh" && text.startsWith(start)
      );
      assert.ok(block, `${name} has no block that begins with ${start}`);
      typed.add(`${name}: ${firstCommand(block.text)}`);
      return await machines.shell(m, change(localize(block.text)));
    };

    for (const m of [1, 2]) await machines.putProgram(m, binary);
    await type(1, "install-ecs", "apt-get install etcd-server");
    for (const m of [1, 2]) {
      await type(m, "install-ecs", "apt-get install iptables");
      await type(m, "install-ecs", "echo net.ipv4.ip_forward");
      await type(
        m,
        "install-ecs",
        "install -m 755",
        (text) =>
          text.replace(
            "systemctl daemon",
            "echo FLANNELD_HEALTHZ_PORT=8089 >> /etc/flanneld.env\n$&",
          ),
      );
      await machines.importImage(m);
    }

    // Another network than docker0's, and then docker0's as the guide has it.
    assert.match(await type(2, "docker", ". /run/flannel/subnet.env"), / 10\.24\.\d+\.\d+\/24 /);
    await machines.shell(2, "docker network rm flannel");
    await machines.shell(2, AS_DOCKERS_OWN);
    for (const m of [1, 2]) await type(m, "docker", "apt-get install docker.io");
    const shown = await type(1, "docker", "ip -br addr show docker0");
    const address = shown.trim().split("\n").at(-1)!;
    const [, subnet] = /FLANNEL_SUBNET=(\S+)/.exec(shown)!;
    assert.ok(shown.startsWith("docker0") && shown.split("\n")[0]!.includes(subnet!));
    await type(2, "docker", "docker run --rm", (text) => text.replace("10.24.67.2", address));

    // What Docker 28 adds, with this Docker's RETURN in DOCKER-USER as after its upgrade.
    await machines.shell(1, `${AS_DOCKER_28} ${address}`);
    await eventually(
      () =>
        machines.shell(2, `docker run --rm tools ping -c 1 -W 1 ${address}`).then(
          () => true,
          () => false,
        ),
      { signal, timeoutMs: 30_000, title: "packets in spite of Docker 28's rules" },
    );
    assert.match(await machines.shell(1, "iptables -t raw -S"), /-j FLANNEL-RAW/);

    const facts = await type(1, "troubleshooting", "systemctl status", (text) =>
      // Only one of iptables and nft has rules.
      text.replace(/; nft list .*/, ""));
    for (const fact of ["flanneld is ready", '"ready": true', "FLANNEL_MTU=1450", "proto 102"]) {
      assert.ok(facts.includes(fact), `${fact} in ${facts}`);
    }

    // Docker's own file may not say what the subnet says.
    const journal = await machines.shell(
      2,
      `echo '{"bip": "10.1.0.1/24", "bridge": "br0"}' > /etc/docker/daemon.json
! systemctl restart docker 2> /dev/null
journalctl -u docker --since -1min
rm /etc/docker/daemon.json; systemctl reset-failed docker; systemctl restart docker`,
    );
    assert.match(journal, /Cannot give dockerd its options: \S+ has "bip" .*, "bridge" /);

    // An upgrade is not noticed by a container.
    const ping = machines.shell(2, `docker run --rm tools ping -c 60 -i 0.2 ${address}`);
    assert.match(await type(1, "operations", "install -m 755"), /active \(running\)/);
    assert.match(await ping, / 0% packet loss/);

    // The options.env of the tutorials.
    await machines.shell(1, "mkdir /etc/flannel && mv /etc/flanneld.env /etc/flannel/options.env");
    await machines.shell(1, "systemctl restart flanneld");

    await type(2, "operations", "systemctl disable --now flanneld");
    assert.doesNotMatch(await machines.shell(2, "ip -br link; iptables-save"), /flannel/i);
    const keys = await machines.shell(
      1,
      "ETCDCTL_API=3 etcdctl --endpoints=http://10.79.0.1:2379 get --prefix --keys-only /coreos.com",
    );
    assert.equal(keys.match(/subnets\//g)?.length, 1, keys);

    await type(
      1,
      "security",
      "export ETCDCTL_API=3",
      (text) =>
        text.replace("\n", "\nexport ETCDCTL_ENDPOINTS=http://10.79.0.1:2379\n")
          .replaceAll(/(user add \w+)/g, "$1:secret"),
    );
    await machines.shell(
      1,
      "printf 'FLANNELD_ETCD_USERNAME=flanneld\nFLANNELD_ETCD_PASSWORD=secret\n' >> " +
        "/etc/flannel/options.env && systemctl restart flanneld",
    );

    const ours = Object.keys(SHELL_BLOCKS).filter((key) => SHELL_BLOCKS[key]!.run === THIS_FILE);
    assert.deepEqual([...typed].sort(), ours.sort());
  },
});

Deno.test({
  name: skippable("the tutorial's steps work as docs/migrate.md has them", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const signal = AbortSignal.timeout(10 * 60_000);
    const binary = await compiledBinary(signal);
    await using machines = await Machines.start(2, signal);
    for (const m of [1, 2]) await machines.putProgram(m, binary);
    const migrate = readDocument("docs/migrate.md");
    const steps = codeSpans(migrate.prose);
    const step = (start: string) => {
      const found = steps.find((text) => text.startsWith(start));
      assert.ok(found, `docs/migrate.md has no ${start}`);
      return found;
    };
    const type = (commands: string) => machines.shell(1, commands);
    const becomes = async (what: string, command: string, expected: string) =>
      await eventually(async () => (await type(`${command} || true`)) === expected, {
        signal,
        timeoutMs: 60_000,
        title: what,
      });
    // The script's place is taken by the program.
    const dockerOpts = step("ExecStartPost=")
      .replace("…/mk-docker-opts.sh", step("/usr/local/bin/flanneld docker-opts"))
      .replace("/run/flannel/docker", "/run/flannel/flannel_docker_opts.env");

    await type(`cat >> /etc/default/etcd << END
ETCD_ENABLE_V2=true
ETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:2379,http://10.79.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=http://10.79.0.1:2379
END
systemctl restart etcd; systemctl enable etcd`);
    await type(step("curl -X PUT"));
    const install = (endpoint: string) => `
mkdir -p /etc/flannel /etc/systemd/system/{flanneld,docker}.service.d
echo FLANNELD_IFACE=eth0 > /etc/flannel/options.env
echo FLANNELD_ETCD_ENDPOINTS=${endpoint} >> /etc/flannel/options.env
printf '[Service]\\n${step("ExecStartPre=")}\\n' \\
  > /etc/systemd/system/flanneld.service.d/${step("40-ExecStartPre")}
printf '[Service]\\n${dockerOpts}\\n' > /etc/systemd/system/flanneld.service.d/docker-opts.conf
printf '[Unit]\\n${step("Requires=")}\\n${step("After=")}\\n[Service]\\n${
      step("EnvironmentFile=")
    }\\n' \\
  > /etc/systemd/system/${step("docker.service.d/40-flannel.conf")}
install -m 755 dist/flanneld /usr/local/bin/flanneld
install -m 644 dist/flanneld.service /etc/systemd/system/flanneld.service
systemctl daemon-reload
systemctl enable flanneld docker
systemctl restart flanneld docker`;
    await type(install("http://127.0.0.1:2379"));
    await machines.shell(2, install("http://10.79.0.1:2379"));
    for (const m of [1, 2]) await machines.importImage(m);
    const subnet = await dockerSubnet();
    const entry = await type(
      "ETCDCTL_API=2 etcdctl --endpoints=http://127.0.0.1:2379 ls /coreos.com/network/subnets",
    );
    const keys = entry.trim().split("\n");
    assert.equal(keys.length, 2);
    assert.ok(keys.includes(`/coreos.com/network/subnets/${subnet.replace(".1/", ".0-")}`), entry);

    // Docker starts flanneld first.
    await type("systemctl stop docker.socket docker flanneld; rm /run/flannel/options.env");
    await type(step("systemctl start docker"));
    assert.equal(await type("systemctl is-active flanneld docker"), "active\nactive\n");
    assert.equal(await dockerSubnet(), subnet);

    // A daemon that is killed is started again, and a machine that boots has the same subnet.
    await type("systemctl kill --signal=KILL flanneld");
    await becomes("the restart", "systemctl is-active flanneld", "active\n");
    await machines.reboot(1);
    await becomes("Docker after the boot", "systemctl is-active docker", "active\n");
    assert.equal(await dockerSubnet(), subnet);

    // Containers of both reach each other after all that.
    await type("docker run -d --name one tools sleep 3600");
    const address = await type("docker inspect -f '{{.NetworkSettings.IPAddress}}' one");
    assert.match(
      await machines.shell(2, `docker run --rm tools ping -c 3 ${address}`),
      / 0% packet loss/,
    );

    async function dockerSubnet(): Promise<string> {
      const [, address] = /FLANNEL_SUBNET=(\S+)/.exec(await type("cat /run/flannel/subnet.env"))!;
      assert.ok((await type("ip -br addr show docker0")).includes(` ${address} `));
      return address!;
    }
  },
});

/** Makes a machine with Debian's Docker like one with Docker's own packages, which are not at hand. */
const AS_DOCKERS_OWN = `mv /usr/sbin/dockerd /usr/bin/dockerd
sed -e '/^EnvironmentFile/d' -e 's|^ExecStart=.*|ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock|' \\
  /usr/lib/systemd/system/docker.service > /etc/systemd/system/docker.service`;

/** To be followed by a container's address. */
const AS_DOCKER_28 = `iptables -A DOCKER ! -i docker0 -o docker0 -j DROP
iptables -t raw -A PREROUTING ! -i docker0 -j DROP -d`;

/** A block for these machines: their address, a backend without a cloud, packages and images there. */
function localize(text: string): string {
  return text.replaceAll("10.0.0.5", "10.79.0.1")
    .replaceAll('"Type":"ali-vpc"', '"Type":"vxlan"')
    .replaceAll("apt-get install", "dpkg-query --show")
    .replaceAll("busybox", "tools");
}
