/**
 * Every flag, as data: upstream flannel's and ours. Parsing, environment and `--help` read this
 * table; what a flag's text must look like beyond its type is checked in options.ts.
 *
 * @module
 */

/** What help, completion and manual page know of a flag of any command. */
export interface Argument {
  readonly name: string;
  /** What stands for the value in the usage text; absent where there is none. */
  readonly value?: string;
  readonly help: string;
}

/** One flag of the daemon, and of `cleanup`. */
export interface Flag extends Argument {
  /** `list` may be given several times; the values add up. */
  readonly type: "string" | "bool" | "int" | "list";
  readonly default: string | boolean | number | readonly string[];
  readonly group: (typeof GROUPS)[number];
  /** The value is a secret and is never printed. */
  readonly secret?: true;
  /** Asks for something else than a run, so no variable stands in for it. */
  readonly ends?: true;
}

/** Groups in the order of the usage text. */
export const GROUPS = [
  "Store",
  "Kubernetes",
  "Lease",
  "External interface",
  "Traffic rules",
  "Alibaba Cloud VPC",
  "Health and logs",
  "Other",
] as const;

/** The table. */
export const FLAGS = [
  {
    name: "etcd-endpoints",
    type: "string",
    default: "http://127.0.0.1:4001,http://127.0.0.1:2379",
    group: "Store",
    value: "URL,…",
    help: "etcd members, separated by commas",
  },
  {
    name: "etcd-prefix",
    type: "string",
    default: "/coreos.com/network",
    group: "Store",
    value: "PATH",
    help: "prefix of the network config and the leases",
  },
  {
    name: "etcd-api",
    type: "string",
    default: "auto",
    group: "Store",
    value: "auto|v3|v2",
    help: "etcd API; auto is v3, or v2 when only v2 holds the config",
  },
  {
    name: "etcd-cafile",
    type: "string",
    default: "",
    group: "Store",
    value: "FILE",
    help: "CA of etcd's certificates (PEM) instead of the system's",
  },
  {
    name: "etcd-certfile",
    type: "string",
    default: "",
    group: "Store",
    value: "FILE",
    help: "client certificate for etcd (PEM)",
  },
  {
    name: "etcd-keyfile",
    type: "string",
    default: "",
    group: "Store",
    value: "FILE",
    help: "key of the client certificate (PEM)",
  },
  {
    name: "etcd-username",
    type: "string",
    default: "",
    group: "Store",
    value: "NAME",
    help: "etcd user",
  },
  {
    name: "etcd-password",
    type: "string",
    default: "",
    group: "Store",
    value: "TEXT",
    help: "password of the etcd user; prefer FLANNELD_ETCD_PASSWORD, which ps does not show",
    secret: true,
  },
  {
    name: "kube-subnet-mgr",
    type: "bool",
    default: false,
    group: "Kubernetes",
    help: "take the subnet from this host's Node object, and publish in its annotations",
  },
  {
    name: "kube-api-url",
    type: "string",
    default: "",
    group: "Kubernetes",
    value: "URL",
    help: "API server; else that of the kubeconfig, or of the pod",
  },
  {
    name: "kubeconfig-file",
    type: "string",
    default: "",
    group: "Kubernetes",
    value: "FILE",
    help: "kubeconfig; else the pod's service account",
  },
  {
    name: "kube-annotation-prefix",
    type: "string",
    default: "flannel.alpha.coreos.com",
    group: "Kubernetes",
    value: "PREFIX",
    help: "prefix of the annotations, a domain or domain/name",
  },
  {
    name: "net-config-path",
    type: "string",
    default: "/etc/kube-flannel/net-conf.json",
    group: "Kubernetes",
    value: "FILE",
    help: "the network config",
  },
  {
    name: "set-node-network-unavailable",
    type: "bool",
    default: true,
    group: "Kubernetes",
    help: "set the condition NetworkUnavailable of the node to False once its pods have a network",
  },
  {
    name: "subnet-file",
    type: "string",
    default: "/run/flannel/subnet.env",
    group: "Lease",
    value: "FILE",
    help: "environment file written for the container runtime, and read at start",
  },
  {
    name: "cni-conf-file",
    type: "string",
    default: "",
    group: "Lease",
    value: "FILE",
    help: "CNI config to be written last, with bridge and portmap for the subnet; by default none",
  },
  {
    name: "subnet-lease-renew-margin",
    type: "int",
    default: 60,
    group: "Lease",
    value: "MINUTES",
    help: "renew the lease this long before it expires, 1 to 1439",
  },
  {
    name: "on-lease-loss",
    type: "string",
    default: "keep",
    group: "Lease",
    value: "keep|reassign",
    help: "when another host took our subnet: keep it and be not ready, or lease another one",
  },
  {
    name: "iface",
    type: "list",
    default: [],
    group: "External interface",
    value: "NAME|IP",
    help: "interface for traffic between hosts; repeatable, tried in order",
  },
  {
    name: "iface-regex",
    type: "list",
    default: [],
    group: "External interface",
    value: "REGEX",
    help: "the first interface whose IP, then whose name matches; repeatable, after --iface",
  },
  {
    name: "iface-can-reach",
    type: "string",
    default: "",
    group: "External interface",
    value: "IP",
    help: "the interface of the route to this address",
  },
  {
    name: "public-ip",
    type: "string",
    default: "",
    group: "External interface",
    value: "IPv4",
    help: "address at which other hosts reach this one, instead of the interface's",
  },
  {
    name: "public-ipv6",
    type: "string",
    default: "",
    group: "External interface",
    value: "IPv6",
    help: "the same for IPv6",
  },
  {
    name: "wait-network",
    type: "int",
    default: 60,
    group: "External interface",
    value: "SECONDS",
    help: "how long to wait for a suitable interface, such as one with a default route",
  },
  {
    name: "ip-masq",
    type: "bool",
    default: false,
    group: "Traffic rules",
    help: "masquerade traffic that leaves the network",
  },
  {
    name: "ip-masq-fully-random-disable",
    type: "bool",
    default: false,
    group: "Traffic rules",
    help: "do not randomise the source ports of masqueraded traffic",
  },
  {
    name: "no-masq-cidr",
    type: "list",
    default: [],
    group: "Traffic rules",
    value: "CIDR",
    help: "do not masquerade traffic to this network; repeatable",
  },
  {
    name: "iptables-forward-rules",
    type: "bool",
    default: true,
    group: "Traffic rules",
    help: "accept forwarded traffic from and to the network",
  },
  {
    name: "iptables-resync",
    type: "int",
    default: 5,
    group: "Traffic rules",
    value: "SECONDS",
    help: "how often the rules are checked, 1 or more",
  },
  {
    name: "ip-blackhole-route",
    type: "bool",
    default: false,
    group: "Traffic rules",
    help: "drop traffic to addresses of this host's subnet that no container has",
  },
  {
    name: "ali-vpc-endpoint",
    type: "string",
    default: "",
    group: "Alibaba Cloud VPC",
    value: "URL",
    help: "VPC API, instead of the region's endpoint inside the VPC",
  },
  {
    name: "ali-ecs-endpoint",
    type: "string",
    default: "",
    group: "Alibaba Cloud VPC",
    value: "URL",
    help: "ECS API, instead of the region's endpoint inside the VPC",
  },
  {
    name: "ali-metadata-endpoint",
    type: "string",
    default: "http://100.100.100.200",
    group: "Alibaba Cloud VPC",
    value: "URL",
    help: "instance metadata service",
  },
  {
    name: "ali-route-writer",
    type: "string",
    default: "auto",
    group: "Alibaba Cloud VPC",
    value: "auto|never",
    help:
      "never: this host does not become the leader, which writes the route entries of all hosts",
  },
  {
    name: "healthz-ip",
    type: "string",
    default: "0.0.0.0",
    group: "Health and logs",
    value: "IP",
    help: "address for /healthz, /readyz and /status; with 0.0.0.0, /status is for this host only",
  },
  {
    name: "healthz-port",
    type: "int",
    default: 0,
    group: "Health and logs",
    value: "PORT",
    help: "port for them; 0 serves nothing",
  },
  {
    name: "log-format",
    type: "string",
    default: "human",
    group: "Health and logs",
    value: "human|json",
    help: "one readable line, or one JSON object, per event on stderr",
  },
  {
    name: "v",
    type: "int",
    default: 0,
    group: "Health and logs",
    value: "LEVEL",
    help: "verbosity: 1 adds debug events, 2 adds traces",
  },
  {
    name: "vmodule",
    type: "string",
    default: "",
    group: "Health and logs",
    value: "FILE=N,…",
    help: "verbosity per source file of upstream; has no effect here",
  },
  {
    name: "log_backtrace_at",
    type: "string",
    default: "",
    group: "Health and logs",
    value: "FILE:N",
    help: "source line of upstream to log a stack trace at; has no effect here",
  },
  {
    name: "check-config",
    type: "string",
    default: "",
    group: "Other",
    value: "FILE|-",
    help: "check the network config in this file, or in stdin for -, and exit",
    ends: true,
  },
  {
    name: "version",
    type: "bool",
    default: false,
    group: "Other",
    help: "print the version and exit",
    ends: true,
  },
  {
    name: "help",
    type: "bool",
    default: false,
    group: "Other",
    help: "print all commands and flags and exit; also -h",
    ends: true,
  },
] as const satisfies readonly Flag[];

/** A flag's name. */
export type FlagName = (typeof FLAGS)[number]["name"];

interface TypeMap {
  readonly string: string;
  readonly bool: boolean;
  readonly int: number;
  readonly list: readonly string[];
}

/** Each flag's value, by name. */
export type FlagValues = {
  readonly [Entry in (typeof FLAGS)[number] as Entry["name"]]: TypeMap[Entry["type"]];
};

/** `--iface`, or `-v`. */
export function withDashes(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

/** The flags that a variable may stand in for. */
export const FLAGS_WITH_VARIABLE: readonly (typeof FLAGS)[number][] = FLAGS.filter((flag: Flag) =>
  !flag.ends
);

/** The environment variable that stands in for a flag: `FLANNELD_ETCD_PREFIX`. */
export function environmentName(flagName: string): string {
  return `FLANNELD_${flagName.toUpperCase().replaceAll("-", "_")}`;
}
