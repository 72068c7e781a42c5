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
  "README.md: npx --yes deno@2.9.6 task compile": {
    not: "the short form of docs/install-ecs.md",
  },
  "docs/docker.md: apt-get install docker.io": {
    not: "needs a machine with systemd and Docker, and changes it",
  },
  "docs/docker.md: ip -br addr show docker0": { not: "needs Docker and an image from a registry" },
  "docs/docker.md: docker run --rm busybox ping -c 3 10.24.67.2": {
    not: "needs Docker and an image from a registry",
  },
  "docs/docker.md: . /run/flannel/subnet.env": { not: "needs Docker and an image from a registry" },
  "docs/install-ecs.md: aliyun vpc CreateVpc --RegionId cn-hangzhou --CidrBlock 10.0.0.0/16": {
    not: "needs an account of Alibaba Cloud, and changes it",
  },
  'docs/install-ecs.md: aliyun ram CreatePolicy --PolicyName flanneld --PolicyDocument "$(cat flanneld-policy.json)"':
    { not: "needs an account of Alibaba Cloud, and changes it" },
  "docs/install-ecs.md: aliyun ecs AuthorizeSecurityGroup --RegionId cn-hangzhou --SecurityGroupId sg-… \\":
    { not: "needs an account of Alibaba Cloud, and changes it" },
  "docs/install-ecs.md: apt-get install etcd-server etcd-client": {
    not:
      "needs a machine with systemd and Docker, and changes it; tests/process/cloud_guide_test.ts writes the same config",
  },
  "docs/install-ecs.md: npx --yes deno@2.9.6 task compile": { run: "tests/process/binary_test.ts" },
  "docs/install-ecs.md: apt-get install iptables": { not: "changes the machine" },
  "docs/install-ecs.md: sudo -E dist/flanneld --etcd-endpoints=http://10.0.0.5:2379": {
    run: "tests/process/cloud_guide_test.ts",
  },
  "docs/install-ecs.md: ETCDCTL_API=3 etcdctl --endpoints=http://10.0.0.5:2379 get --prefix /coreos.com/network/subnets":
    {
      not:
        "needs an account of Alibaba Cloud, and changes it; tests/process/cloud_guide_test.ts looks at the same keys and entries",
    },
  "docs/install-ecs.md: install -m 755 dist/flanneld /usr/local/bin/flanneld": {
    not: "needs a machine with systemd and Docker, and changes it",
  },
  "docs/migrate.md: mkdir -p /etc/systemd/system/flanneld.service.d": {
    not: "needs a machine with systemd and Docker, and changes it",
  },
  "docs/operations.md: ETCDCTL_API=3 etcdctl --endpoints=http://10.0.0.5:2379 get /coreos.com/network/ali-vpc/election/writer":
    { run: "tests/store/documents_test.ts" },
  "docs/operations.md: export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://10.0.0.5:2379": {
    run: "tests/store/documents_test.ts",
  },
  'docs/operations.md: ETCDCTL_API=3 etcdctl --endpoints=http://10.0.0.5:2379 put /coreos.com/network/ali-vpc/cluster "$(cat flannel-cluster-id)"':
    { run: "tests/store/documents_test.ts" },
  "docs/operations.md: install -m 755 dist/flanneld /usr/local/bin/flanneld": {
    not: "needs a machine with systemd and Docker, and changes it",
  },
  "docs/operations.md: systemctl disable --now flanneld": {
    not:
      "needs a machine with systemd and Docker, and changes it; cleanup is run by tests/process/kernel_cleanup_test.ts",
  },
  "docs/security.md: export ETCDCTL_API=3": {
    not: "asks for passwords; tests/store/etcd_v3_faults_test.ts runs the same commands",
  },
  "docs/troubleshooting.md: systemctl status flanneld; journalctl -u flanneld": {
    not: "shows a running service of this machine",
  },
};
