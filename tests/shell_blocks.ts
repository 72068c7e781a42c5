/**
 * Which test runs which shell block of README.md and docs/, or why none does. A block is known by its
 * document and first command; a test fails for one that is not in here.
 *
 * @module
 */

/** What becomes of a block: the file that runs it, or the reason why nothing does. */
export interface ShellBlock {
  readonly run?: string;
  readonly not?: string;
}

export const SHELL_BLOCKS: Readonly<Record<string, ShellBlock>> = {
  "README.md: npx --yes deno@2.9.6 task demo": { run: ".ci/run" },
  "README.md: npx --yes deno@2.9.6 task package": {
    not: "the short form of docs/install-ecs.md",
  },
  "docs/docker.md: apt-get install docker.io": { run: "tests/machine/documents_test.ts" },
  "docs/docker.md: ip -br addr show docker0": { run: "tests/machine/documents_test.ts" },
  "docs/docker.md: docker run --rm busybox ping -c 3 10.24.67.2": {
    run: "tests/machine/documents_test.ts",
  },
  "docs/docker.md: . /run/flannel/subnet.env": { run: "tests/machine/documents_test.ts" },
  "docs/install-ecs.md: aliyun vpc CreateVpc --RegionId cn-hangzhou --CidrBlock 10.0.0.0/16": {
    not: "needs an account of Alibaba Cloud, and changes it",
  },
  'docs/install-ecs.md: aliyun ram CreatePolicy --PolicyName flanneld --PolicyDocument "$(cat flanneld-policy.json)"':
    { not: "needs an account of Alibaba Cloud, and changes it" },
  "docs/install-ecs.md: aliyun ecs AuthorizeSecurityGroup --RegionId cn-hangzhou --SecurityGroupId sg-… \\":
    { not: "needs an account of Alibaba Cloud, and changes it" },
  "docs/install-ecs.md: apt-get install etcd-server etcd-client": {
    run: "tests/machine/documents_test.ts",
  },
  "docs/install-ecs.md: npx --yes deno@2.9.6 task package": {
    run: "tests/package/packages_test.ts",
  },
  "docs/install-ecs.md: apt-get install ./flanneld_0.1.0_amd64.deb": {
    run: "tests/machine/package_test.ts",
  },
  "docs/install-ecs.md: echo 'FLANNELD_ETCD_ENDPOINTS=http://10.0.0.5:2379' >> /etc/flanneld.env": {
    run: "tests/machine/package_test.ts",
  },
  "docs/install-ecs.md: npx --yes deno@2.9.6 task compile": { run: "tests/process/binary_test.ts" },
  "docs/install-ecs.md: apt-get install iptables": { run: "tests/machine/documents_test.ts" },
  "docs/install-ecs.md: echo net.ipv4.ip_forward=1 > /etc/sysctl.d/90-flanneld.conf && sysctl -p /etc/sysctl.d/90-flanneld.conf":
    { run: "tests/machine/documents_test.ts" },
  "docs/install-ecs.md: sudo -E dist/flanneld --etcd-endpoints=http://10.0.0.5:2379": {
    run: "tests/process/cloud_guide_test.ts",
  },
  "docs/install-ecs.md: ETCDCTL_API=3 etcdctl --endpoints=http://10.0.0.5:2379 get --prefix /coreos.com/network/subnets":
    {
      not:
        "needs an account of Alibaba Cloud, and changes it; tests/process/cloud_guide_test.ts looks at the same keys and entries",
    },
  "docs/install-ecs.md: install -m 755 dist/flanneld /usr/local/bin/flanneld": {
    run: "tests/machine/documents_test.ts",
  },
  "docs/operations.md: ETCDCTL_API=3 etcdctl --endpoints=http://10.0.0.5:2379 get /coreos.com/network/ali-vpc/election/writer":
    { run: "tests/store/documents_test.ts" },
  "docs/operations.md: export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://10.0.0.5:2379": {
    run: "tests/store/documents_test.ts",
  },
  'docs/operations.md: ETCDCTL_API=3 etcdctl --endpoints=http://10.0.0.5:2379 put /coreos.com/network/ali-vpc/cluster "$(cat flannel-cluster-id)"':
    { run: "tests/store/documents_test.ts" },
  "docs/operations.md: install -m 755 dist/flanneld /usr/local/bin/flanneld": {
    run: "tests/machine/documents_test.ts",
  },
  "docs/operations.md: systemctl disable --now flanneld": {
    run: "tests/machine/documents_test.ts",
  },
  "docs/security.md: export ETCDCTL_API=3": { run: "tests/machine/documents_test.ts" },
  "docs/troubleshooting.md: systemctl status flanneld; journalctl -u flanneld": {
    run: "tests/machine/documents_test.ts",
  },
};
