import assert from "node:assert/strict";
import fc from "fast-check";
import { UsageError } from "../errors.ts";
import { environmentName, FLAGS } from "./flags.ts";
import type { Options } from "./options.ts";
import { loadGoRegex } from "./go_syntax.ts";
import { parseCommandLine, readCommandLine, SECRET_FLAGS } from "./parse.ts";

const compilePattern = await loadGoRegex();

type Environment = Record<string, string>;

function run(args: string[], environment: Environment = {}) {
  const commandLine = parseCommandLine(args, environment, compilePattern);
  assert.equal(commandLine.action, "run");
  return commandLine;
}

function optionsOf(args: string[], environment: Environment = {}): Options {
  return run(args, environment).options;
}

function faultsOf(args: string[], environment: Environment = {}): string[] {
  try {
    parseCommandLine(args, environment, compilePattern);
  } catch (error) {
    assert.ok(error instanceof UsageError, String(error));
    return error.message.split("\n");
  }
  return [];
}

/** Values as text, for comparison. */
function plain(options: Options): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.map(String) : typeof value === "object" ? String(value) : value,
    ]),
  );
}

Deno.test("parseCommandLine() reads the self-test, which takes nothing else", () => {
  assert.deepEqual(parseCommandLine(["self-test"], {}), { action: "self-test" });
  assert.match(faultsOf(["self-test", "--ip-masq"])[0]!, /nothing follows "flanneld self-test"/);
  assert.match(faultsOf(["--ip-masq=1", "self-test"])[0]!, /it comes first/);
});

Deno.test("parseCommandLine() reads the words that print something", () => {
  for (const action of ["help", "version", "man"] as const) {
    assert.deepEqual(parseCommandLine([action], { FLANNELD_IFACE: "\0" }), { action });
  }
  assert.deepEqual(parseCommandLine(["help", "cleanup"], {}), { action: "help" });
  assert.deepEqual(parseCommandLine(["man", "--help"], {}), { action: "help" });
  assert.deepEqual(faultsOf(["version", "all"]), [
    'Unexpected argument "all": nothing follows "flanneld version"',
  ]);
  assert.deepEqual(parseCommandLine(["completion", "zsh"], {}), {
    action: "completion",
    shell: "zsh",
  });
  const shells = '"flanneld completion" takes one of: bash, zsh, fish';
  assert.deepEqual(faultsOf(["completion"]), [shells]);
  assert.deepEqual(faultsOf(["completion", "bash", "zsh"]), [shells]);
  assert.deepEqual(faultsOf(["completion", "bsah"]), [
    `Unexpected argument "bsah": ${shells}; did you mean bash?`,
  ]);
});

Deno.test("parseCommandLine() reads the file whose config is to be checked", () => {
  for (
    const args of [["--check-config=net.json"], ["--check-config", "net.json", "--iface=eth0"]]
  ) {
    const command = parseCommandLine(args, { FLANNELD_CHECK_CONFIG: "other", FLANNELD_V: "x" });
    assert.deepEqual(command, { action: "check-config", file: "net.json" });
  }
  assert.deepEqual(parseCommandLine(["--check-config", "-"], {}), {
    action: "check-config",
    file: "-",
  });
  assert.match(faultsOf(["--check-config="])[0]!, /needs a value/);
  assert.match(faultsOf(["--chek-config=x"])[0]!, /did you mean --check-config/);
});

Deno.test("parseCommandLine() reads docker-opts, which has flags of its own", () => {
  const command = parseCommandLine(["docker-opts", "-ck", "ALL"], { FLANNELD_IFACE: "\0" });
  assert.equal(command.action, "docker-opts");
  assert.equal(command.options.combinedKey, "ALL");
  assert.equal(parseCommandLine(["docker-opts", "-h"], {}).action, "help");
  assert.match(faultsOf(["docker-opts", "--ip-masq"])[0]!, /"--ip-masq": docker-opts takes flags/);
  assert.match(faultsOf(["--iface=eth0", "docker-opts"])[0]!, /it comes first/);
  assert.match(faultsOf(["mk-docker-opts.sh"])[0]!, /did you mean "flanneld docker-opts"/);
});

Deno.test("parseCommandLine() reads the clean-up with the same flags, and whether to release", () => {
  for (
    const [args, release] of [
      [["cleanup"], false],
      [["cleanup", "--release"], true],
      [["cleanup", "--iface=eth1", "-release"], true],
      [["cleanup", "--release=false", "--iface", "eth1"], false],
    ] as const
  ) {
    const command = parseCommandLine(args, { FLANNELD_SUBNET_FILE: "/run/x.env" });
    assert.equal(command.action, "cleanup");
    assert.equal(command.release, release, args.join(" "));
    assert.equal(command.options.subnetFile, "/run/x.env");
    assert.deepEqual(command.options.iface, args.length > 2 ? ["eth1"] : []);
  }
  assert.equal(parseCommandLine(["cleanup", "--help"], {}).action, "help");
  assert.match(faultsOf(["cleanup", "--release=perhaps"])[0]!, /"perhaps" for --release/);
  assert.match(faultsOf(["--release"])[0]!, /Unknown flag --release/);
  assert.match(faultsOf(["cleanup", "all"])[0]!, /Unexpected argument "all"/);
  assert.match(faultsOf(["--ip-masq", "cleanup"])[0]!, /Unexpected argument "cleanup"/);
});

Deno.test("parseCommandLine() has upstream's defaults", () => {
  const options = optionsOf([]);
  assert.deepEqual({ ...plain(options), etcdEndpoints: options.etcdEndpoints }, {
    etcdEndpoints: [
      { url: "http://127.0.0.1:4001", secure: false, hostname: "127.0.0.1", port: 4001, notes: [] },
      { url: "http://127.0.0.1:2379", secure: false, hostname: "127.0.0.1", port: 2379, notes: [] },
    ],
    etcdPrefix: "/coreos.com/network",
    etcdApi: "auto",
    subnetFile: "/run/flannel/subnet.env",
    subnetLeaseRenewMarginMinutes: 60,
    onLeaseLoss: "keep",
    iface: [],
    ifaceRegex: [],
    waitNetworkSeconds: 60,
    ipMasq: false,
    ipMasqFullyRandomDisable: false,
    noMasqCidr: [],
    iptablesForwardRules: true,
    iptablesResyncSeconds: 5,
    ipBlackholeRoute: false,
    aliMetadataEndpoint: "http://100.100.100.200/",
    aliRouteWriter: "auto",
    healthzIp: "0.0.0.0",
    healthzPort: 0,
    logFormat: "human",
    verbosity: 0,
  });
});

Deno.test("parseCommandLine() knows every upstream flag, by flag and by variable", () => {
  const upstream = `etcd-endpoints etcd-prefix etcd-keyfile etcd-certfile etcd-cafile etcd-username
    etcd-password iface iface-regex iface-can-reach subnet-file public-ip public-ipv6
    subnet-lease-renew-margin ip-masq ip-masq-fully-random-disable kube-subnet-mgr kube-api-url
    kube-annotation-prefix kubeconfig-file net-config-path set-node-network-unavailable healthz-ip
    healthz-port iptables-resync iptables-forward-rules ip-blackhole-route version v vmodule
    log_backtrace_at`.split(/\s+/);
  const names = FLAGS.map((flag) => flag.name as string);
  for (const name of upstream) assert.ok(names.includes(name), name);
  assert.equal(new Set(names).size, names.length);
  assert.equal(environmentName("log_backtrace_at"), "FLANNELD_LOG_BACKTRACE_AT");
  assert.equal(environmentName("v"), "FLANNELD_V");
});

Deno.test("parseCommandLine() reads Go's flag syntax", () => {
  const options = optionsOf([
    "-etcd-endpoints=http://10.0.0.5:2379, https://etcd.example:2379 ,http://10.0.0.5:2379/",
    "--etcd-prefix",
    "//net//work/",
    "--ip-masq",
    "-iptables-forward-rules=F",
    "--iface=eth0",
    "--iface",
    "10.0.0.7",
    "-iface-regex=^eth\\d$",
    "--healthz-port",
    "0x1f90",
    "-v=1",
    "-v",
    "1_0",
    "--no-masq-cidr=10.0.0.0/8",
    "--no-masq-cidr=fd00::/8",
    "--public-ip=192.0.2.1",
    "--public-ipv6=2001:DB8::1",
    "--on-lease-loss=reassign",
    "--ali-vpc-endpoint=http://127.0.0.1:8080/vpc",
    "--ali-route-writer=never",
    "--",
  ]);
  assert.deepEqual(options.etcdEndpoints.map(({ url }) => url), [
    "http://10.0.0.5:2379",
    "https://etcd.example:2379",
  ]);
  assert.equal(options.etcdPrefix, "//net//work/");
  assert.equal(options.ipMasq, true);
  assert.equal(options.iptablesForwardRules, false);
  assert.deepEqual(options.iface, ["eth0", "10.0.0.7"]);
  assert.ok(options.ifaceRegex[0]!.test("eth1"));
  assert.equal(options.healthzPort, 8080);
  assert.equal(options.verbosity, 10);
  assert.deepEqual(options.noMasqCidr.map(String), ["10.0.0.0/8", "fd00::/8"]);
  assert.equal(String(options.publicIp), "192.0.2.1");
  assert.equal(String(options.publicIpv6), "2001:db8::1");
  assert.equal(options.onLeaseLoss, "reassign");
  assert.equal(String(options.aliVpcEndpoint), "http://127.0.0.1:8080/vpc");
  assert.equal(options.aliRouteWriter, "never");
});

Deno.test("parseCommandLine() takes a variable for each flag that is not given", () => {
  const environment = {
    FLANNELD_ETCD_ENDPOINTS: "http://10.0.0.5:2379",
    FLANNELD_IFACE: "eth0,eth1",
    FLANNELD_IP_MASQ: "true",
    FLANNELD_V: "2",
    FLANNELD_ALI_ROUTE_WRITER: "never",
    FLANNELD_ETCD_PREFIX: "",
    FLANNELD_HEALTHZ_PORT: "bad, but not looked at",
    FLANNELD_VERSION: "true",
    FLANNELD_HELP: "true",
    FLANNELD_SERVICE_HOST: "10.96.0.1",
    HOME: "/root",
  };
  const { options, warnings } = run(["--healthz-port=8080"], environment);
  assert.deepEqual(options.etcdEndpoints.map(({ url }) => url), ["http://10.0.0.5:2379"]);
  assert.deepEqual(options.iface, ["eth0,eth1"], "one element, as upstream");
  assert.equal(options.ipMasq, true);
  assert.equal(options.verbosity, 2);
  assert.equal(options.aliRouteWriter, "never");
  assert.equal(options.etcdPrefix, "/coreos.com/network");
  assert.equal(options.healthzPort, 8080);
  assert.deepEqual(warnings, []);
  assert.deepEqual(run([], { FLANNELD_IFCAE: "eth0" }).warnings, [
    "FLANNELD_IFCAE is not known and has no effect; did you mean FLANNELD_IFACE?",
  ]);
});

Deno.test("parseCommandLine() sees --help and --version before anything else", () => {
  for (const args of [["-h"], ["--help"], ["-help"], ["--ip-masq", "-h"], ["--bogus", "--help"]]) {
    assert.deepEqual(parseCommandLine(args, { FLANNELD_V: "bad" }), { action: "help" });
  }
  for (const args of [["--version"], ["-version=true"], ["--v=2", "--version"]]) {
    assert.deepEqual(parseCommandLine(args, { FLANNELD_V: "bad" }), { action: "version" });
  }
  assert.equal(parseCommandLine(["--version=false"], {}).action, "run");
});

Deno.test("parseCommandLine() says in one line what is wrong", () => {
  const cases: [string[], string][] = [
    [["--etcd-endpoint=x"], "Unknown flag --etcd-endpoint; did you mean --etcd-endpoints?"],
    [
      ["--log-format=jsno"],
      'Invalid value "jsno" for --log-format: it must be one of: human, json; did you mean json?',
    ],
    [["--colour", "red"], "Unknown flag --colour; see --help for all flags"],
    [
      ["--ip-masq", "false"],
      'Unexpected argument "false" after --ip-masq: ' +
      'a boolean takes its value with "=", as in --ip-masq=false (upstream reads --ip-masq alone here, and nothing of what follows)',
    ],
    [["--ip-masq=true", "x"], 'Unexpected argument "x": flanneld takes flags only'],
    [["--", "--ip-masq"], 'Unexpected argument "--ip-masq": flanneld takes flags only'],
    [["run"], 'Unexpected argument "run": flanneld takes flags only; without a command it runs'],
    [
      ["hepl"],
      'Unexpected argument "hepl": flanneld takes flags only; did you mean "flanneld help"?',
    ],
    [
      ["--ip-masq", "version"],
      'Unexpected argument "version" after --ip-masq: a boolean takes its value with "=", as in ' +
      "--ip-masq=false (upstream reads --ip-masq alone here, and nothing of what follows)",
    ],
    [
      ["Status"],
      'Unexpected argument "Status": flanneld takes flags only; ' +
      "/status tells it, with --healthz-port",
    ],
    [
      ["clean-up", "--release"],
      'Unexpected argument "clean-up": flanneld takes flags only; did you mean "flanneld cleanup"?',
    ],
    [
      ["--iface=eth0", "cleanup"],
      'Unexpected argument "cleanup": flanneld takes flags only; ' +
      'it comes first, as in "flanneld cleanup"',
    ],
    [
      ["iface=eth0"],
      'Unexpected argument "iface=eth0": flanneld takes flags only; did you mean --iface?',
    ],
    [["cleanup", "--relase"], "Unknown flag --relase; did you mean --release?"],
    [["--release"], 'Unknown flag --release; it belongs to "flanneld cleanup"'],
    [
      ["cleanup", "--release=perhaps", "--ifcae=eth0"],
      'Invalid value "perhaps" for --release: it must be true or false|' +
      "Unknown flag --ifcae; did you mean --iface?",
    ],
    [
      ["\u2013\u2013iface=eth0", "\u2014ip-masq", "-v=x"],
      'Cannot read the argument for iface: it begins with U+2013 –, a dash, where "-" is needed|' +
      'Cannot read the argument for ip-masq: it begins with U+2014 —, a dash, where "-" is needed|' +
      'Invalid value "x" for --v: it must be a whole number',
    ],
    [
      ['--iface="eth0"'],
      'Invalid value "\\"eth0\\"" for --iface: it must be written without quotes',
    ],
    [
      ["--etcd-prefix=\u201c/x\u201d"],
      'Invalid value "\u201c/x\u201d" for --etcd-prefix: it must be written without quotes; ' +
      "it holds U+201C “, a curly quote",
    ],
    [
      ["--iface=eth0 --ip-masq"],
      'Invalid value "eth0 --ip-masq" for --iface: it must not hold another flag: ' +
      "give --ip-masq as an argument of its own",
    ],
    [
      ["--iface=eth0:1"],
      'Invalid value "eth0:1" for --iface: it must be an interface name or an IP address',
    ],
    [
      ["--iface=eth0", " "],
      'Unexpected argument " ": flanneld takes flags only; does a script have Windows line ends?',
    ],
    [["-"], 'Unexpected argument "-": flanneld takes flags only'],
    [["---v=1"], 'Cannot read argument "---v=1": flags look like --name=value'],
    [["--=1"], 'Cannot read argument "--=1": flags look like --name=value'],
    [["--iface"], "Flag --iface needs a value, as in --iface=NAME|IP"],
    [["--ip-masq=yes"], 'Invalid value "yes" for --ip-masq: it must be true or false'],
    [["--ip-masq="], 'Invalid value "" for --ip-masq: it must be true or false'],
    [["-v=debug"], 'Invalid value "debug" for --v: it must be a whole number'],
    [["-v=-1"], 'Invalid value "-1" for --v: it must be a whole number from 0 to 2147483647'],
    [
      ["--subnet-lease-renew-margin=0"],
      'Invalid value "0" for --subnet-lease-renew-margin: ' +
      "it must be a whole number from 1 to 1439",
    ],
    [
      ["--subnet-lease-renew-margin=1440"],
      'Invalid value "1440" for ' +
      "--subnet-lease-renew-margin: it must be a whole number from 1 to 1439",
    ],
    [
      ["--iptables-resync=0"],
      'Invalid value "0" for --iptables-resync: ' +
      "it must be a whole number from 1 to 86400",
    ],
    [
      ["--healthz-port=65536"],
      'Invalid value "65536" for --healthz-port: ' +
      "it must be a whole number from 0 to 65535",
    ],
    [
      ["--healthz-ip=localhost"],
      'Invalid value "localhost" for --healthz-ip: ' +
      "it must be an IP address",
    ],
    [["--public-ip=::1"], 'Invalid value "::1" for --public-ip: it must be an IPv4 address'],
    [
      ["--public-ipv6=1.2.3.4"],
      'Invalid value "1.2.3.4" for --public-ipv6: ' +
      "it must be an IPv6 address",
    ],
    [
      ["--iface-can-reach=10.0.0"],
      'Invalid value "10.0.0" for --iface-can-reach: ' +
      "it must be an IP address",
    ],
    [
      ["--iface=eth0:1"],
      'Invalid value "eth0:1" for --iface: ' +
      "it must be an interface name or an IP address",
    ],
    [
      ["--iface-regex=eth("],
      'Invalid value "eth(" for --iface-regex: ' +
      "it must be a regular expression (RE2)",
    ],
    [
      ["--no-masq-cidr=10.0.0.0"],
      'Invalid value "10.0.0.0" for --no-masq-cidr: ' +
      "it must be a network such as 10.0.0.0/8",
    ],
    [
      ['--etcd-endpoints="10.0.0.5:2379"'],
      'Invalid value "\\"10.0.0.5:2379\\"" for --etcd-endpoints: ' +
      "it must be written without quotes",
    ],
    [
      ["--etcd-endpoints=10.0.0.5:0"],
      'Invalid value "10.0.0.5:0" for --etcd-endpoints: ' +
      "it must have a port from 1 to 65535 after the colon",
    ],
    [
      ["--etcd-endpoints=,"],
      'Invalid value "," for --etcd-endpoints: ' +
      "it must name one endpoint at least",
    ],
    [["--etcd-prefix="], 'Invalid value "" for --etcd-prefix: it must not be empty'],
    [["--etcd-api=v4"], 'Invalid value "v4" for --etcd-api: it must be one of: auto, v3, v2'],
    [
      ["--ali-route-writer=no"],
      'Invalid value "no" for --ali-route-writer: it must be one of: auto, never',
    ],
    [
      ["--ali-ecs-endpoint=ecs.aliyuncs.com"],
      'Invalid value "ecs.aliyuncs.com" for ' +
      "--ali-ecs-endpoint: it must be a URL that starts with http:// or https://",
    ],
    [
      ["--etcd-certfile=a", "--etcd-endpoints=https://a"],
      "--etcd-certfile is given without --etcd-keyfile; give both, or neither",
    ],
    [
      ["--etcd-keyfile=a", "--etcd-endpoints=https://a"],
      "--etcd-keyfile is given without --etcd-certfile; give both, or neither",
    ],
    [
      ["--etcd-username=root"],
      "--etcd-username is given without --etcd-password; give both, or neither",
    ],
  ];
  for (const [args, expected] of cases) {
    assert.deepEqual(
      faultsOf(args),
      expected.replace("NAME|IP", "NAME/IP").split("|")
        .map((line) => line.replace("NAME/IP", "NAME|IP")),
      args.join(" "),
    );
  }
});

Deno.test("parseCommandLine() reports every fault together, the environment's by variable", () => {
  assert.deepEqual(
    faultsOf(["--ip-msaq", "--healthz-port=x"], { FLANNELD_V: "much", FLANNELD_PUBLIC_IP: "x" }),
    [
      "Unknown flag --ip-msaq; did you mean --ip-masq?",
      'Invalid value "x" for --healthz-port: it must be a whole number',
      'Invalid value "much" for FLANNELD_V: it must be a whole number',
      'Invalid value "x" for FLANNELD_PUBLIC_IP: it must be an IPv4 address',
    ],
  );
});

Deno.test("parseCommandLine() reads the flags of Kubernetes where it is the store", () => {
  assert.equal(optionsOf([]).kube, undefined);
  assert.equal(optionsOf(["--kubeconfig-file=/etc/k"]).kube, undefined);
  assert.deepEqual(optionsOf(["--kube-subnet-mgr"]).kube, {
    annotationPrefix: "flannel.alpha.coreos.com",
    netConfigPath: "/etc/kube-flannel/net-conf.json",
    setsCondition: true,
  });
  const given = optionsOf(["--kube-subnet-mgr", "--set-node-network-unavailable=false"], {
    FLANNELD_KUBE_API_URL: "https://api:6443",
    FLANNELD_KUBECONFIG_FILE: "/etc/k",
    FLANNELD_KUBE_ANNOTATION_PREFIX: "org.com/x",
    FLANNELD_NET_CONFIG_PATH: "/n.json",
  });
  assert.deepEqual(given.kube, {
    apiUrl: "https://api:6443/",
    kubeconfigFile: "/etc/k",
    annotationPrefix: "org.com/x",
    netConfigPath: "/n.json",
    setsCondition: false,
  });
  assert.match(String(faultsOf(["--kube-subnet-mgr", "--kube-api-url=x"])), /must be a URL/);
});

Deno.test("parseCommandLine() keeps the password out of every text", () => {
  const canary = "canary-7d1f";
  const { etcdUsername, etcdPassword } = optionsOf([
    "--etcd-username=root",
    `--etcd-password=${canary}`,
  ]);
  assert.equal(etcdUsername, "root");
  assert.equal(etcdPassword?.reveal(), canary);
  assert.deepEqual(SECRET_FLAGS, ["etcd-password"]);
  const faulty: [string[], Environment][] = [
    [[`--etcd-password=${canary}`], {}],
    [[], { FLANNELD_ETCD_PASSWORD: canary }],
    [[`--etcd-pasword=${canary}`], {}],
    [["--etcd-pasword", canary], {}],
    [[`--etcd-password${canary}`], {}],
    [["--etcd-password", "my", canary], {}],
    [[`--etcd-endpoints=http://root:${canary}@10.0.0.5:0`], {}],
    [[`--etcd-endpoints=http://root:${canary}%@10.0.0.5`], {}],
    [[`--etcd-endpoints=http://root:${canary}/@10.0.0.5:2379`], {}],
    [[`\u2013etcd-password=${canary}`], {}],
    [["\u2013etcd-password", canary], {}],
    [[`\u2014etcd-password${canary}`], {}],
    [["--iface=a b"], { FLANNEL_OPTIONS: `--etcd-password=${canary}` }],
    [[], { FLANNELD_ETCD_ENDPOINTS: `root:${canary}@10.0.0.5:2379` }],
    [[`--etcd-endpoints=http://root:x,${canary},${canary}@10.0.0.5:2379,http://a`], {}],
    [[`--ali-vpc-endpoint=http://u:${canary}@127.0.0.1`], {}],
  ];
  for (const [args, environment] of faulty) {
    const faults = faultsOf(args, environment);
    assert.ok(faults.length > 0, args.join(" "));
    assert.doesNotMatch(faults.join("\n"), /canary/);
  }
});

Deno.test("parseCommandLine() takes endpoints as people write them", () => {
  const urls = (text: string, ...more: string[]) =>
    optionsOf([`--etcd-endpoints=${text}`, ...more]).etcdEndpoints.map(({ url }) => url);
  assert.deepEqual(urls("etcd-1:2379,etcd-2:2379"), ["http://etcd-1:2379", "http://etcd-2:2379"]);
  assert.deepEqual(urls("[fd00::5]:2379"), ["http://[fd00::5]:2379"]);
  assert.deepEqual(urls("10.0.0.5"), ["http://10.0.0.5:2379"]);
  assert.deepEqual(urls("http://lb:80,https://lb:443"), ["http://lb:80", "https://lb:443"]);
  assert.deepEqual(urls(",http://a:1, ,a:1,http://A:1/,"), ["http://a:1"]);
  // As upstream's client: it speaks TLS where it has a certificate to show.
  const identity = ["--etcd-certfile=c", "--etcd-keyfile=k"];
  assert.deepEqual(urls("a:1,http://b:1", ...identity), ["https://a:1", "http://b:1"]);
});

Deno.test("parseCommandLine() takes the user of an endpoint for etcd's, unless one is given", () => {
  const own = ["--etcd-username=root", "--etcd-password=own-canary"];
  const cases: readonly (readonly [
    string,
    readonly string[],
    (string | undefined)?,
    (string | undefined)?,
    RegExp?,
  ])[] = [
    ["http://me:s3cret@a:1", [], "me", "s3cret"],
    ["http://me:s3cret@a:1,https://me:s3cret@b:1,http://c:1", [], "me", "s3cret"],
    [
      "http://c:1,http://me:s3cret@a:1,http://b:x@b:1",
      [],
      "me",
      "s3cret",
      /one user .* the first/,
    ],
    ["http://me:s3cret@a:1", own, "root", "own-canary", /one user .* --etcd-username$/],
    ["http://root:own-canary@a:1", own, "root", "own-canary"],
    ["http://me@a:1", [], undefined, undefined, /before the @ has no effect/],
    ["http://a:1", []],
  ];
  for (const [endpoints, more, name, password, warning] of cases) {
    const { options, warnings } = run([`--etcd-endpoints=${endpoints}`, ...more]);
    assert.equal(options.etcdUsername, name, endpoints);
    assert.equal(options.etcdPassword?.reveal(), password, endpoints);
    assert.equal(warnings.length, warning ? 1 : 0, warnings.join());
    if (warning) assert.match(warnings[0]!, warning);
    assert.doesNotMatch(JSON.stringify([options, warnings]), /s3cret|canary|me@/);
  }
});

Deno.test("parseCommandLine() takes upstream's flags about source files, and checks their form", () => {
  const cases: readonly (readonly [string, boolean])[] = [
    ["vmodule=x=1", true],
    ["vmodule=x*=1,main=2,", true],
    ["vmodule=x", false],
    ["vmodule=x=y", false],
    ["vmodule=x=-1", false],
    ["vmodule==1", false],
    ["log_backtrace_at=main.go:234", true],
    ["log_backtrace_at=main:234", false],
    ["log_backtrace_at=main.go:0", false],
  ];
  for (const [text, good] of cases) {
    if (good) assert.match(run([`--${text}`]).warnings.join(), /^--\w+ has no effect: /, text);
    else assert.equal(faultsOf([`--${text}`]).length, 1, text);
  }
  assert.deepEqual(run(["--vmodule="]).warnings, []);
});

Deno.test("parseCommandLine() warns of flags without effect", () => {
  assert.deepEqual(run(["--no-masq-cidr=10.0.0.0/8", "--etcd-endpoints=a,b:1/x"]).warnings, [
    "--etcd-endpoints: http://a:2379: no port was given, so 2379 is tried",
    "--etcd-endpoints: http://b:1: what follows the port was left out, it has no effect",
    "--no-masq-cidr has no effect without --ip-masq",
  ]);
});

Deno.test("parseCommandLine() of any arguments throws nothing but UsageError", () => {
  const argument = fc.oneof(
    fc.string(),
    fc.tuple(
      fc.constantFrom("-", "--", "---"),
      fc.constantFrom(...FLAGS.map((flag) => flag.name), "bogus"),
      fc.constantFrom("", "="),
      fc.oneof(fc.string(), fc.constantFrom("", "true", "1", "10.0.0.0/8", "http://a", "::1")),
    ).map((parts) => parts.join("")),
  );
  fc.assert(fc.property(fc.array(argument, { maxLength: 6 }), fc.string(), (args, text) => {
    for (const fault of faultsOf(args, { FLANNELD_IFACE: text, FLANNELD_V: text })) {
      assert.doesNotMatch(fault, /\n/);
    }
  }));
});

Deno.test("parseCommandLine() drops carriage returns and blanks at the ends of every value", () => {
  const values: Record<string, string> = {
    string: "text",
    bool: "true",
    int: "5",
    list: "eth0",
    "etcd-endpoints": "http://10.0.0.5:2379",
    "etcd-prefix": "/x",
    "etcd-api": "v3",
    "etcd-username": "root",
    "etcd-password": " pass word ",
    "on-lease-loss": "reassign",
    "iface-can-reach": "10.0.0.1",
    "public-ip": "10.0.0.7",
    "public-ipv6": "fd00::7",
    "no-masq-cidr": "10.0.0.0/8",
    "kube-api-url": "http://127.0.0.1:4",
    "ali-vpc-endpoint": "http://127.0.0.1:1",
    "ali-ecs-endpoint": "http://127.0.0.1:2",
    "ali-metadata-endpoint": "http://127.0.0.1:3",
    "ali-route-writer": "never",
    "healthz-ip": "127.0.0.1",
    "log-format": "json",
    "vmodule": "main=1",
    "log_backtrace_at": "main.go:7",
  };
  const flags = FLAGS.filter(({ group }) => group !== "Other")
    .map(({ name, type }) => ({ name, value: values[name] ?? values[type]! }));
  const variables = (end: string) =>
    Object.fromEntries(flags.map(({ name, value }) => [environmentName(name), value + end]));
  const args = (end: string) => flags.map(({ name, value }) => `--${name}=${value}${end}`);
  const expected = plain(optionsOf([], variables("")));
  for (const end of ["\r", "\r\n", "\n"]) {
    assert.deepEqual(plain(optionsOf([], variables(end))), expected);
    assert.deepEqual(plain(optionsOf(args(end))), expected);
    assert.equal(optionsOf(args(end)).etcdPassword!.reveal(), " pass word ");
  }
  assert.equal(expected.subnetFile, "text");
  assert.equal(optionsOf(["--subnet-file", " /run/x.env\t"]).subnetFile, "/run/x.env");
  assert.equal(optionsOf(["--ip-masq\r"]).ipMasq, true, "the last one of a script's line");
  assert.deepEqual(
    plain(optionsOf([], { FLANNELD_V: "\r", FLANNELD_IFACE: " " })),
    plain(optionsOf([])),
  );
  assert.equal(parseCommandLine(["cleanup\r"], {}).action, "cleanup");
});

Deno.test("readCommandLine() loads what patterns need, from a flag or a variable", async () => {
  for (
    const [args, environment] of [
      [["--iface-regex", "^eth"], {}],
      [["-iface-regex=^eth"], {}],
      [["cleanup", "--iface-regex=^eth"], {}],
      [[], { FLANNELD_IFACE_REGEX: "^eth" }],
    ] as const
  ) {
    const command = await readCommandLine(args, environment);
    assert.ok(command.action === "run" || command.action === "cleanup");
    assert.ok(command.options.ifaceRegex[0]!.test("eth0"));
  }
});

Deno.test("parseCommandLine() takes an empty value of a list for one that is not given", () => {
  const flags = ["--iface=", "--iface-regex=", "--no-masq-cidr= \r"];
  const { options, warnings } = run(flags);
  assert.deepEqual([options.iface, options.ifaceRegex, options.noMasqCidr], [[], [], []]);
  assert.deepEqual(warnings, []);
  assert.deepEqual(optionsOf([...flags, "--iface=eth0"]).iface, ["eth0"]);
});

Deno.test("parseCommandLine() takes a link's name as ip prints it", () => {
  for (const text of ["eth0.100@eth0", "eth0.100@eth0:", "eth0.100:", "eth0.100@if7"]) {
    const { options, warnings } = run([`--iface=${text}`]);
    assert.deepEqual(options.iface, ["eth0.100"]);
    assert.deepEqual(warnings, [
      `--iface ${text} is taken for the link eth0.100, as ip prints its name so`,
    ]);
  }
  assert.deepEqual(run(["--iface=fd00::1"]).warnings, []);
  assert.deepEqual(optionsOf(["--iface=fd00::1"]).iface, ["fd00::1"]);
});

Deno.test("parseCommandLine() warns once of each variable of the old packages, and of no other", () => {
  const { warnings } = run([], {
    FLANNEL_ETCD_ENDPOINTS: "http://127.0.0.1:2379",
    FLANNEL_ETCD_PREFIX: "/atomic.io/network",
    FLANNEL_ETCD: "http://127.0.0.1:4001",
    FLANNEL_ETCD_KEY: "/atomic.io/network",
    FLANNEL_OPTIONS: "--iface=eth0",
    FLANNEL_IFACE: "eth0",
    FLANNEL_NETWORK: "10.24.0.0/16",
    FLANNEL_SUBNET: "10.24.1.1/24",
    FLANNEL_MTU: "1450",
    FLANNEL_IPMASQ: "true",
    FLANNEL_IPV6_NETWORK: "fd00::/56",
    FLANNEL_IPV6_SUBNET: "fd00::1/64",
    FLANNEL_SERVICE_HOST: "10.96.0.1",
    FLANNEL_PORT: "tcp://10.96.0.1:80",
    FLANNEL_VERSION: "v0.28.9",
    FLANNEL_ETCD_CAFILE: "",
  });
  const meant = (name: string, flag: string) =>
    `${name} is not known and has no effect; did you mean ${flag}?`;
  assert.deepEqual(warnings, [
    meant("FLANNEL_ETCD_ENDPOINTS", "FLANNELD_ETCD_ENDPOINTS"),
    meant("FLANNEL_ETCD_PREFIX", "FLANNELD_ETCD_PREFIX"),
    meant("FLANNEL_ETCD", "FLANNELD_ETCD_ENDPOINTS"),
    meant("FLANNEL_ETCD_KEY", "FLANNELD_ETCD_PREFIX"),
    "FLANNEL_OPTIONS is not read by flanneld itself; give its flags as arguments, or each as a " +
    "variable such as FLANNELD_IFACE",
    meant("FLANNEL_IFACE", "FLANNELD_IFACE"),
  ]);
  // A start script turns them into flags.
  assert.deepEqual(
    run(["-etcd-endpoints=http://127.0.0.1:2379", "-etcd-prefix=/x", "--iface=eth0", "-v=1"], {
      FLANNEL_ETCD_ENDPOINTS: "http://127.0.0.1:2379",
      FLANNEL_ETCD_KEY: "/x",
      FLANNEL_OPTIONS: "--iface=eth0  -v=1",
    }).warnings,
    [],
  );
});
