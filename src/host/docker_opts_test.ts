import assert from "node:assert/strict";
import { join } from "node:path";
import { skippable } from "../../tests/prerequisites.ts";
import { run } from "../../tests/support/run.ts";
import { type DockerOptions, parseDockerOptions } from "../cli/docker_opts.ts";
import { OperatorError, UsageError } from "../errors.ts";
import { renderDockerOptions, type RenderedOptions, writeDockerOptions } from "./docker_opts.ts";

const SUBNET_ENV = `FLANNEL_NETWORK=10.24.0.0/16
FLANNEL_SUBNET=10.24.7.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
`;

interface Given {
  readonly args?: readonly string[];
  readonly subnetEnv?: string | undefined;
  readonly daemonConfig?: unknown;
  readonly routes?: string;
  readonly environment?: Record<string, string>;
}

function render(given: Given): string {
  return renderWithWarnings(given).text;
}

function renderWithWarnings({ args = [], daemonConfig, ...given }: Given): RenderedOptions {
  return renderDockerOptions(parseDockerOptions(args)!, {
    ...{ subnetEnv: SUBNET_ENV, routes: "", environment: {}, ...given },
    daemonConfig: typeof daemonConfig === "string" ? daemonConfig : JSON.stringify(daemonConfig),
  });
}

const BIP = 'DOCKER_OPT_BIP="--bip=10.24.7.1/24"\n';
const MASQ = 'DOCKER_OPT_IPMASQ="--ip-masq=false"\n';
const MTU = 'DOCKER_OPT_MTU="--mtu=1450"\n';
const ALL = ' --bip=10.24.7.1/24 --ip-masq=false --mtu=1450"\n';

/** What is given, and what upstream's script writes then. */
const CASES: readonly [Given, string][] = [
  [{}, `${BIP}${MASQ}${MTU}DOCKER_OPTS="${ALL}`],
  [{ args: ["-i"] }, `${BIP}${MASQ}${MTU}`],
  [{ args: ["-c"] }, `DOCKER_OPTS="${ALL}`],
  [{ args: ["-ic"] }, `${BIP}${MASQ}${MTU}DOCKER_OPTS="${ALL}`],
  [{ args: ["-k", "ALL"] }, `${BIP}${MASQ}${MTU}ALL="${ALL}`],
  [{ args: ["-ckALL"] }, `ALL="${ALL}`],
  [{ args: ["-m"] }, `${BIP}${MTU}DOCKER_OPTS=" --bip=10.24.7.1/24 --mtu=1450"\n`],
  [{ args: ["-c"], environment: { DOCKER_OPTS: "-D" } }, `DOCKER_OPTS="-D ${ALL}`],
  [
    { args: ["-i"], environment: { DOCKER_OPT_A: "--a", DOCKER_OPT_MTU: "--mtu=1" } },
    `DOCKER_OPT_A="--a"\n${BIP}${MASQ}${MTU}`,
  ],
  [
    { args: ["-i"], subnetEnv: SUBNET_ENV.replace("true", "false") },
    `${BIP}DOCKER_OPT_IPMASQ="--ip-masq=true"\n${MTU}`,
  ],
  [{ args: ["-i"], subnetEnv: "FLANNEL_SUBNET=10.24.7.1/24\n" }, BIP],
  [{ args: ["-im"], subnetEnv: "FLANNEL_SUBNET='10.24.7.1/24'\nFLANNEL_IPMASQ=x\n" }, BIP],
];

Deno.test("renderDockerOptions() writes what upstream's script writes, byte by byte", () => {
  for (const [given, expected] of CASES) {
    assert.equal(render(given), expected, JSON.stringify(given));
  }
});

const script = Deno.env.get("FLANNEL_MK_DOCKER_OPTS");
const obstacle = script === undefined
  ? "needs upstream's mk-docker-opts.sh, named by FLANNEL_MK_DOCKER_OPTS"
  : undefined;

Deno.test({
  name: skippable("upstream's script writes what the test above expects", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const folder = await Deno.makeTempDir();
    const [input, output] = [join(folder, "subnet.env"), join(folder, "docker.env")];
    const signal = AbortSignal.timeout(60_000);
    for (const [{ args = [], subnetEnv = SUBNET_ENV, environment = {} }, expected] of CASES) {
      await Deno.writeTextFile(input, subnetEnv);
      const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
      await run("env", [...variables, "sh", script!, "-f", input, "-d", output, ...args], {
        signal,
      });
      assert.equal(await Deno.readTextFile(output), expected, args.join(" "));
    }
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test("docker-opts names what is missing or wrong in subnet.env", () => {
  const cases: [string | undefined, RegExp][] = [
    [undefined, /there is no \/run\/flannel\/subnet\.env; flanneld writes it/],
    ["FLANNEL_MTU=1450\n", /subnet\.env has no FLANNEL_SUBNET; Docker needs an IPv4 subnet/],
    ["FLANNEL_SUBNET=fd00::1/64\n", /FLANNEL_SUBNET in \S+ is "fd00::1\/64"; it must be/],
    ["FLANNEL_SUBNET=10.24.7.1/24 -D\n", /FLANNEL_SUBNET in \S+ is "10\.24\.7\.1\/24 -D"/],
    [SUBNET_ENV.replace("1450", "big"), /FLANNEL_MTU in \S+ is "big"; it must be a number/],
    [SUBNET_ENV.replace("true", "yes"), /FLANNEL_IPMASQ in \S+ is "yes"; it must be true or/],
  ];
  for (const [subnetEnv, expected] of cases) {
    assert.throws(() => render({ subnetEnv }), (error) => {
      assert.ok(error instanceof OperatorError);
      assert.match(error.message, expected);
      return true;
    });
  }
});

Deno.test("docker-opts names what dockerd would refuse beside daemon.json", () => {
  const all = { bip: "10.0.0.1/24", mtu: 1500, bridge: "br0", "ip-masq": true, debug: true };
  assert.throws(
    () => render({ daemonConfig: all }),
    /daemon\.json has "bip" \(against --bip=10\.24\.7\.1\/24\), "bridge" \(against --bip.*\), "ip-masq" \(against --ip-masq=false\), "mtu" \(against --mtu=1450\), and dockerd does not start/,
  );
  const fine: Given[] = [
    { args: ["-m"], daemonConfig: { "ip-masq": true, bridge: "" } },
    { subnetEnv: "FLANNEL_SUBNET=10.24.7.1/24", daemonConfig: { mtu: 9000 } },
    { daemonConfig: { "log-level": "debug" } },
    { daemonConfig: "{" }, // dockerd's own message is best
    { daemonConfig: "null" },
  ];
  for (const given of fine) assert.match(render(given), /--bip=/);
});

Deno.test("docker-opts names what of daemon.json does not fit the subnet", () => {
  assert.throws(
    () => render({ daemonConfig: { "default-gateway": "10.24.8.1" } }),
    /subnet 10\.24\.7\.0\/24: "default-gateway" in \S+, 10\.24\.8\.1, lies outside of it/,
  );
  const cases: [Record<string, unknown>, expected: RegExp[]][] = [
    [{ "fixed-cidr": "172.17.0.0/24" }, [/"fixed-cidr" .*172\.17\.0\.0\/24, lies outside of/]],
    [{ "default-address-pools": [{ base: "10.0.0.0/8", size: 24 }, { base: "172.20.0.0/16" }] }, [
      /"default-address-pools" in \S+ has 10\.0\.0\.0\/8, which overlaps the network 10\.24\.0\.0\/16/,
    ]],
    [{ "default-gateway": "10.24.7.254", "fixed-cidr": "10.24.7.128/25" }, []],
    [{ "fixed-cidr": 1, "default-address-pools": [null, 3, {}], "default-gateway": null }, []],
    [{ "default-address-pools": {}, "fixed-cidr": "x", "default-gateway": "x" }, []],
  ];
  for (const [daemonConfig, expected] of cases) {
    const { text, warnings } = renderWithWarnings({ daemonConfig });
    assert.match(text, /--bip=10\.24\.7\.1/);
    assert.equal(warnings.length, expected.length, warnings.join());
    expected.forEach((pattern, i) => assert.match(warnings[i]!, pattern));
  }
});

Deno.test("docker-opts names a route that leads the subnet elsewhere", () => {
  const line = (destination: string, gateway: string, mask: string) =>
    `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n` +
    `eth0\t${destination}\t${gateway}\t0003\t0\t0\t0\t${mask}\t0\t0\t0   \n`;
  const lost = line("0007180A", "0500000A", "00FFFFFF");
  assert.throws(
    () => render({ routes: lost }),
    /the route 10\.24\.7\.0\/24 via 10\.0\.0\.5 dev eth0 leads it elsewhere/,
  );
  for (
    const routes of [
      line("0007180A", "00000000", "00FFFFFF"), // docker0's own
      line("0008180A", "0500000A", "00FFFFFF"), // a peer's
      line("0000180A", "0500000A", "0000FFFF"), // the whole network
      line("00000000", "0500000A", "00000000"),
    ]
  ) assert.match(render({ routes }), /--bip=/);
});

Deno.test("parseDockerOptions() has the script's defaults, and refuses what it cannot read", () => {
  assert.deepEqual(parseDockerOptions([]), {
    subnetFile: "/run/flannel/subnet.env",
    output: "/run/docker_opts.env",
    individual: true,
    combined: true,
    combinedKey: "DOCKER_OPTS",
    ipMasq: true,
    configFile: "/etc/docker/daemon.json",
  });
  const files = parseDockerOptions(["-fa", "-d", "b", "--config-file=c"])!;
  assert.deepEqual([files.subnetFile, files.output, files.configFile], ["a", "b", "c"]);
  for (const help of ["-h", "-?", "--help", "-help"]) {
    assert.equal(parseDockerOptions(["-i", help]), undefined);
  }
  assert.throws(
    () => parseDockerOptions(["-ix", "out", "-k", "A B", "-d"]),
    new UsageError(
      'Unknown flag "-x" of docker-opts; see --help for all flags\n' +
        'Unexpected argument "out": docker-opts takes flags only; see --help\n' +
        "Flag -d needs a value, as in -d VALUE\n" +
        `Invalid value "A B" for -k: it must be a variable's name`,
    ),
  );
});

Deno.test("writeDockerOptions() replaces the file, or leaves it as it is", async () => {
  const folder = await Deno.makeTempDir();
  const [input, output] = [join(folder, "subnet.env"), join(folder, "docker.env")];
  const options: DockerOptions = parseDockerOptions(["-c", "-f", input, "-d", output])!;
  await Deno.writeTextFile(input, SUBNET_ENV);
  const none = { ...options, configFile: join(folder, "none.json") };
  await writeDockerOptions(none, {});
  assert.equal(await Deno.readTextFile(output), `DOCKER_OPTS="${ALL}`);
  await Deno.remove(input);
  await assert.rejects(writeDockerOptions(none, {}), OperatorError);
  assert.equal(await Deno.readTextFile(output), `DOCKER_OPTS="${ALL}`);
  assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["docker.env"]);
  await Deno.remove(folder, { recursive: true });
});
