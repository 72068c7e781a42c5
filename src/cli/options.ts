import { Address, type Endpoint, type Family, parseEndpoint, Prefix } from "../net/mod.ts";
import { Secret } from "../secret.ts";
import { oneOf } from "../util/nearest.ts";
import type { FlagName, FlagValues } from "./flags.ts";
import type { CompilePattern, Pattern } from "./go_syntax.ts";

/** The checked options of a run, from flags, environment and defaults. */
export interface Options {
  /** Without credentials and path; one at least. */
  readonly etcdEndpoints: readonly Endpoint[];
  /** As given, without blanks around it; the store cleans it as upstream does. */
  readonly etcdPrefix: string;
  readonly etcdApi: "auto" | "v3" | "v2";
  readonly etcdCafile?: string;
  /** Certificate and key are given together or not at all. */
  readonly etcdCertfile?: string;
  readonly etcdKeyfile?: string;
  /** User and password are given together or not at all. */
  readonly etcdUsername?: string;
  readonly etcdPassword?: Secret;

  /** Present if leases are kept in Kubernetes, not in etcd. */
  readonly kube?: KubeOptions;

  readonly subnetFile: string;
  /** The CNI config to be written, if any. */
  readonly cniConfFile?: string;
  /** 1..1439 */
  readonly subnetLeaseRenewMarginMinutes: number;
  readonly onLeaseLoss: "keep" | "reassign";

  /** Names or IP addresses. */
  readonly iface: readonly string[];
  readonly ifaceRegex: readonly Pattern[];
  readonly ifaceCanReach?: Address;
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
  /** 0 or more */
  readonly waitNetworkSeconds: number;

  readonly ipMasq: boolean;
  readonly ipMasqFullyRandomDisable: boolean;
  readonly noMasqCidr: readonly Prefix[];
  readonly iptablesForwardRules: boolean;
  /** 1 or more */
  readonly iptablesResyncSeconds: number;
  readonly ipBlackholeRoute: boolean;

  readonly aliVpcEndpoint?: URL;
  readonly aliEcsEndpoint?: URL;
  readonly aliMetadataEndpoint: URL;
  /** Whether this host may be the one that writes the route entries of all. */
  readonly aliRouteWriter: "auto" | "never";

  readonly healthzIp: Address;
  /** 0 serves nothing. */
  readonly healthzPort: number;
  readonly logFormat: "human" | "json";
  readonly verbosity: number;
}

/** How leases are kept in Kubernetes. */
export interface KubeOptions {
  readonly apiUrl?: string;
  readonly kubeconfigFile?: string;
  /** As given; the store checks it. */
  readonly annotationPrefix: string;
  readonly netConfigPath: string;
  /** Whether the node's condition NetworkUnavailable is set. */
  readonly setsCondition: boolean;
}

/** What {@linkcode readOptions} found wrong, or probably meant otherwise. */
export interface OptionFindings {
  /** To be called with a flag whose value is bad, and what it must be. */
  fault(flag: FlagName, mustBe: string, value?: string): void;
  /** To be called with a sentence about flags that do not go together. */
  conflict(sentence: string): void;
  warn(sentence: string): void;
}

/** What a wait or an interval may be at most; also keeps timers within their 31 bits. */
const DAY_SECONDS = 86_400;

/** Checks what each flag's type leaves open. The result is only good if nothing was found wrong. */
export function readOptions(
  values: FlagValues,
  findings: OptionFindings,
  compilePattern: CompilePattern,
): Options {
  function text(name: StringFlag): string {
    if (values[name].trim() === "") findings.fault(name, "it must not be empty");
    return values[name];
  }
  function integer(name: IntegerFlag, min: number, max: number): number {
    const value = values[name];
    if (value < min || value > max) {
      findings.fault(name, `it must be a whole number from ${min} to ${max}`);
    }
    return value;
  }
  function choice<const Choice extends string>(name: StringFlag, choices: readonly Choice[]) {
    const found = choices.find((each) => each === values[name]);
    if (found === undefined) findings.fault(name, `it must be ${oneOf(choices, values[name])}`);
    return found ?? choices[0]!;
  }
  function address(name: StringFlag, family?: Family): Address | undefined {
    const value = values[name].trim();
    if (value === "") return undefined;
    const given = Address.tryParse(value);
    const found = family === 4 ? given?.unmapped() : given;
    if (found !== undefined && found.family === (family ?? found.family)) return found;
    findings.fault(name, `it must be an ${family ? `IPv${family}` : "IP"} address`);
    return undefined;
  }
  function list<T>(name: ListFlag, mustBe: string, parse: (value: string) => T | undefined): T[] {
    return values[name].flatMap((value) => {
      // A script's `--iface=$IFACE` without the variable; upstream takes it for not given.
      if (value.trim() === "") return [];
      const found = parse(value.trim());
      if (found === undefined) findings.fault(name, mustBe, value);
      return found === undefined ? [] : [found];
    });
  }
  function url(name: StringFlag): URL | undefined {
    const value = values[name].trim();
    if (value === "") return undefined;
    const found = parseUrl(value);
    if (typeof found !== "string") return found;
    findings.fault(name, found);
    return undefined;
  }

  function readKube(): KubeOptions {
    const kubeconfigFile = values["kubeconfig-file"].trim();
    return {
      ...optional("apiUrl", url("kube-api-url")?.href),
      ...optional("kubeconfigFile", kubeconfigFile === "" ? undefined : kubeconfigFile),
      annotationPrefix: text("kube-annotation-prefix").trim(),
      netConfigPath: text("net-config-path"),
      setsCondition: values["set-node-network-unavailable"],
    };
  }

  /** A flag about the source files of upstream: taken as there, without effect. */
  function ofUpstreamsSources(name: StringFlag, form: RegExp, mustBe: string): void {
    const value = values[name].trim();
    if (value === "") return;
    if (!form.test(value)) findings.fault(name, mustBe);
    findings.warn(
      `--${name} has no effect: it names upstream's source files; -v gives more detail`,
    );
  }

  ofUpstreamsSources(
    "vmodule",
    /^(?:(?:[^=,]+=\d{1,9})?(?:,|$))+$/,
    "it must be a list of FILE=LEVEL, separated by commas",
  );
  ofUpstreamsSources("log_backtrace_at", /^[^:]*\.[^:]*:[1-9]\d*$/, "it must be FILE.go:LINE");
  const { endpoints, users } = readEtcdEndpoints(values, findings);
  return {
    etcdEndpoints: endpoints,
    etcdPrefix: text("etcd-prefix").trim(),
    etcdApi: choice("etcd-api", ["auto", "v3", "v2"]),
    ...readEtcdIdentity(values, users, findings),
    ...optional("kube", values["kube-subnet-mgr"] ? readKube() : undefined),
    subnetFile: text("subnet-file"),
    ...optional("cniConfFile", values["cni-conf-file"].trim() || undefined),
    subnetLeaseRenewMarginMinutes: integer("subnet-lease-renew-margin", 1, 1439),
    onLeaseLoss: choice("on-lease-loss", ["keep", "reassign"]),
    iface: list(
      "iface",
      "it must be an interface name or an IP address",
      (value) => readInterface(value, findings),
    ),
    ifaceRegex: list("iface-regex", "it must be a regular expression (RE2)", (value) => {
      try {
        return compilePattern(value);
      } catch (error) {
        if (error instanceof SyntaxError) return undefined;
        throw error;
      }
    }),
    ...optional("ifaceCanReach", address("iface-can-reach")),
    ...optional("publicIp", address("public-ip", 4)),
    ...optional("publicIpv6", address("public-ipv6", 6)),
    waitNetworkSeconds: integer("wait-network", 0, DAY_SECONDS),
    ipMasq: values["ip-masq"],
    ipMasqFullyRandomDisable: values["ip-masq-fully-random-disable"],
    noMasqCidr: list(
      "no-masq-cidr",
      "it must be a network such as 10.0.0.0/8",
      (value) => Prefix.tryParse(value),
    ),
    iptablesForwardRules: values["iptables-forward-rules"],
    iptablesResyncSeconds: integer("iptables-resync", 1, DAY_SECONDS),
    ipBlackholeRoute: values["ip-blackhole-route"],
    ...optional("aliVpcEndpoint", url("ali-vpc-endpoint")),
    ...optional("aliEcsEndpoint", url("ali-ecs-endpoint")),
    aliMetadataEndpoint: url("ali-metadata-endpoint") ?? new URL("http://100.100.100.200"),
    aliRouteWriter: choice("ali-route-writer", ["auto", "never"]),
    healthzIp: address("healthz-ip") ?? Address.unspecified(4), // as Go listens for ""
    healthzPort: integer("healthz-port", 0, 65_535),
    logFormat: choice("log-format", ["human", "json"]),
    verbosity: integer("v", 0, 2 ** 31 - 1),
  };
}

type FlagOfType<T> = {
  [Name in FlagName]: FlagValues[Name] extends T ? Name : never;
}[FlagName];
type StringFlag = FlagOfType<string>;
type IntegerFlag = FlagOfType<number>;
type ListFlag = FlagOfType<readonly string[]>;

/** A user of etcd and the password. */
interface EtcdUser {
  readonly name: string;
  readonly password: Secret;
}

function readEtcdEndpoints(
  values: FlagValues,
  findings: OptionFindings,
): { readonly endpoints: readonly Endpoint[]; readonly users: readonly EtcdUser[] } {
  const name = "etcd-endpoints";
  const text = values[name];
  // Upstream's client speaks TLS to an endpoint without a scheme if it has a certificate to show.
  const secure = values["etcd-certfile"].trim() !== "" && values["etcd-keyfile"].trim() !== "";
  const endpoints = new Map<string, Endpoint>();
  const users: EtcdUser[] = [];
  const parts = text.split(",").map((each) => each.trim());
  for (const part of parts) {
    if (part === "") continue;
    const endpoint = parseEndpoint(part, { secure });
    if (typeof endpoint === "string") {
      // A piece may be one of a password that holds a comma; of the whole, what is before @ is hidden.
      findings.fault(name, endpoint, text.includes("@") ? text : part);
    } else if (!endpoints.has(endpoint.url)) {
      const { user, ...rest } = endpoint;
      endpoints.set(endpoint.url, rest);
      if (user) users.push({ name: user.name, password: new Secret(user.password) });
      endpoint.notes.forEach((note) => findings.warn(`--${name}: ${note}`));
    }
  }
  if (parts.every((part) => part === "")) {
    findings.fault(name, "it must name one endpoint at least");
  }
  return { endpoints: [...endpoints.values()], users };
}

function readEtcdIdentity(
  values: FlagValues,
  users: readonly EtcdUser[],
  findings: OptionFindings,
) {
  const file = (name: "etcd-cafile" | "etcd-certfile" | "etcd-keyfile") =>
    values[name].trim() === "" ? undefined : values[name];
  const [cafile, certfile, keyfile] = [
    file("etcd-cafile"),
    file("etcd-certfile"),
    file("etcd-keyfile"),
  ];
  if ((certfile === undefined) !== (keyfile === undefined)) {
    const [given, missing] = certfile === undefined
      ? ["--etcd-keyfile", "--etcd-certfile"]
      : ["--etcd-certfile", "--etcd-keyfile"];
    findings.conflict(`${given} is given without ${missing}; give both, or neither`);
  }
  const [username, password] = [values["etcd-username"], values["etcd-password"]];
  if ((username === "") !== (password === "")) {
    const [given, missing] = username === ""
      ? ["--etcd-password", "--etcd-username"]
      : ["--etcd-username", "--etcd-password"];
    findings.conflict(`${given} is given without ${missing}; give both, or neither`);
  }
  // As upstream's client of v2 took them; that of v3 ignores them, and etcd refuses it then.
  const isOther = ({ name, password: own }: EtcdUser) =>
    name !== (username || users[0]!.name) ||
    own.reveal() !== (password || users[0]!.password.reveal());
  if (users.some(isOther)) {
    findings.warn(
      `--etcd-endpoints: one user is used for all members, ` +
        (username === "" ? "the first that is given" : "that of --etcd-username"),
    );
  }
  return {
    ...optional("etcdCafile", cafile),
    ...optional("etcdCertfile", certfile),
    ...optional("etcdKeyfile", keyfile),
    ...optional("etcdUsername", username || users[0]?.name),
    ...optional("etcdPassword", password === "" ? users[0]?.password : new Secret(password)),
  };
}

/** The URL, or what it must be. */
function parseUrl(text: string): URL | string {
  const url = URL.parse(text);
  if (url === null || !/^https?:\/\//i.test(text)) {
    return "it must be a URL that starts with http:// or https://";
  }
  if (url.username !== "" || url.password !== "") {
    return "it must hold no user and password";
  }
  return url;
}

/** A link's name or an address. A name may be copied from `ip`, which prints `eth0.100@eth0:`. */
function readInterface(text: string, findings: OptionFindings): string | undefined {
  if (Address.tryParse(text) !== undefined) return text;
  const name = text.replace(/(?:@[^@]*)?:?$/, "");
  // The kernel takes neither for a name; ":" is in labels of addresses, such as eth0:1.
  if (!/^[^\s/:]+$/.test(name)) return undefined;
  if (name !== text) {
    findings.warn(`--iface ${text} is taken for the link ${name}, as ip prints its name so`);
  }
  return name;
}

/** `{ [name]: value }`, or nothing for `undefined`, as exactOptionalPropertyTypes asks for. */
function optional<Name extends string, T>(name: Name, value: T | undefined) {
  return (value === undefined ? {} : { [name]: value }) as { readonly [K in Name]?: T };
}
