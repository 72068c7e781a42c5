/**
 * The CNI plug-in `flannel`: completes its config with subnet.env and hands it to a delegate. State
 * files can be read by upstream's plug-in, and the other way round. Loads neither network nor netlink.
 *
 * @module
 */
import { ifPresent, writeFileAtomically } from "../host/atomic_file.ts";
import { isObject, type JsonObject } from "../util/json_object.ts";
import { type CniEnvironment, runDelegate } from "./delegate.ts";
import { CniFailure, CODES } from "./failure.ts";
import {
  NAME,
  type NetConf,
  parseNetConf,
  parsePodNetwork,
  type PodNetwork,
  renderDelegate,
  renderJson,
} from "./netconf.ts";

const VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/** A verb: the variables that it needs, the version that brought it, and what it does. */
interface Verb {
  readonly needs: readonly string[];
  readonly since: string;
  readonly run: (call: Call) => Promise<string>;
}

interface Call {
  readonly conf: NetConf;
  readonly environment: CniEnvironment;
  readonly containerId: string;
  readonly signal: AbortSignal;
}

const OF_CONTAINER = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"];

const VERBS: Readonly<Record<string, Verb>> = {
  ADD: { needs: [...OF_CONTAINER, "CNI_NETNS"], since: "0.1.0", run: add },
  DEL: { needs: OF_CONTAINER, since: "0.1.0", run: del },
  CHECK: { needs: [...OF_CONTAINER, "CNI_NETNS"], since: "0.4.0", run: check },
  STATUS: { needs: ["CNI_PATH"], since: "1.1.0", run: status },
  GC: { needs: ["CNI_PATH"], since: "1.1.0", run: collectGarbage },
};

/** Where the call comes from; tests give their own. */
export interface PluginInput {
  readonly environment: CniEnvironment;
  /** Reads standard input to its end. */
  readonly readInput: () => Promise<string>;
  readonly signal: AbortSignal;
}

/** What is printed to standard output, and the exit code. */
export interface PluginOutput {
  readonly code: 0 | 1;
  readonly stdout: string;
}

/** Runs one call of the plug-in; what fails is told in CNI's format. */
export async function runPlugin(
  { environment, readInput, signal }: PluginInput,
): Promise<PluginOutput> {
  let cniVersion = VERSIONS.at(-1)!;
  try {
    const command = environment["CNI_COMMAND"] ?? "";
    if (command === "VERSION") {
      const stdout = JSON.stringify({ cniVersion, supportedVersions: VERSIONS }) + "\n";
      return { code: 0, stdout };
    }
    const verb = VERBS[command];
    if (!verb) throw new CniFailure(CODES.badEnvironment, `unknown CNI_COMMAND: ${command}`);
    checkEnvironment(verb, environment);
    const conf = parseNetConf(await readInput());
    checkVersion(command, verb, conf);
    cniVersion = conf.cniVersion;
    const containerId = environment["CNI_CONTAINERID"] ?? "";
    return { code: 0, stdout: await verb.run({ conf, environment, containerId, signal }) };
  } catch (error) {
    const failure = error instanceof CniFailure
      ? error
      : new CniFailure(CODES.io, error instanceof Error ? error.message : String(error));
    return { code: 1, stdout: failure.render(cniVersion) };
  }
}

function checkEnvironment({ needs }: Verb, environment: CniEnvironment): void {
  const missing = needs.filter((name) => !environment[name]);
  if (missing.length > 0) {
    throw new CniFailure(
      CODES.badEnvironment,
      `required env variables [${missing.join(",")}] missing`,
    );
  }
  if (!needs.includes("CNI_CONTAINERID")) return;
  if (!NAME.test(environment["CNI_CONTAINERID"]!)) {
    throw new CniFailure(CODES.badEnvironment, "invalid characters in CNI_CONTAINERID");
  }
  const link = environment["CNI_IFNAME"]!;
  if (link.length > 15 || link === "." || link === ".." || /[/:\s]/.test(link)) {
    throw new CniFailure(CODES.badEnvironment, "CNI_IFNAME is no name of a link");
  }
}

function checkVersion(command: string, { since }: Verb, { cniVersion }: NetConf): void {
  const place = VERSIONS.indexOf(cniVersion);
  if (place < 0) {
    throw new CniFailure(
      CODES.incompatibleVersion,
      "incompatible CNI versions",
      `config is "${cniVersion}", plugin supports ${JSON.stringify(VERSIONS)}`,
    );
  }
  if (place < VERSIONS.indexOf(since)) {
    throw new CniFailure(
      CODES.incompatibleVersion,
      `config version does not allow ${command}`,
      `config is "${cniVersion}", ${command} came with ${since}`,
    );
  }
}

async function add({ conf, environment, containerId, signal }: Call): Promise<string> {
  const delegate = renderDelegate(conf, await readPodNetwork(conf, CODES.tryAgainLater));
  const config = renderJson(delegate);
  // First, so that DEL undoes an ADD that was cut short.
  await Deno.mkdir(conf.dataDir, { recursive: true, mode: 0o700 });
  await writeFileAtomically(stateFile(conf, containerId), config, { mode: 0o600 });
  const result = await runDelegate(delegate.type, config, environment, signal);
  return withVersion(result, conf);
}

async function del({ conf, environment, containerId, signal }: Call): Promise<string> {
  const state = await readState(conf, containerId);
  // A broken file, as a crash leaves one, would keep the pod from ever ending.
  if (state === undefined || state === "broken") return "";
  await runDelegate(state.type, state.text, environment, signal);
  await ifPresent(Deno.remove(stateFile(conf, containerId))); // only now: a retry needs it
  return "";
}

async function check({ conf, environment, containerId, signal }: Call): Promise<string> {
  const state = await readState(conf, containerId);
  if (state === undefined || state === "broken") {
    throw new CniFailure(
      CODES.unknownContainer,
      `there is no usable ${stateFile(conf, containerId)}: this container was not added`,
    );
  }
  const { subnets } = await readPodNetwork(conf, CODES.tryAgainLater);
  const { ranges } = state.value["ipam"] as JsonObject;
  if (renderJson(ranges) !== renderJson(subnets.map((subnet) => [{ subnet }]))) {
    throw new CniFailure(
      CODES.subnetChanged,
      `this host's subnet is ${subnets.join(" and ")} now; the container has an address of another`,
    );
  }
  const config = renderJson({ ...state.value, prevResult: withGateways(conf.prevResult) });
  await runDelegate(state.type, config, environment, signal);
  return "";
}

/**
 * A result whose routes name their gateways: bridge adds routes by the gateway of the address, but
 * checks for one without where the result names none, and would fail each healthy pod.
 */
function withGateways(result: unknown): unknown {
  if (!isObject(result)) return result;
  const { ips, routes } = result;
  if (!Array.isArray(ips) || !Array.isArray(routes)) return result;
  const isIpv6 = (text: unknown) => String(text).includes(":");
  const complete = (route: unknown) => {
    if (!isObject(route) || route["gw"]) return route;
    const ip = ips.find((each) =>
      isObject(each) && isIpv6(each["address"]) === isIpv6(route["dst"])
    );
    return ip?.gateway ? { ...route, gw: ip.gateway } : route;
  };
  return { ...result, routes: routes.map(complete) };
}

async function status({ conf, environment, signal }: Call): Promise<string> {
  const delegate = renderDelegate(conf, await readPodNetwork(conf, CODES.notAvailable));
  await runDelegate(delegate.type, renderJson(delegate), environment, signal);
  return "";
}

async function collectGarbage({ conf, environment, signal }: Call): Promise<string> {
  if (conf.attachments === undefined) {
    throw new CniFailure(CODES.badConfig, `GC needs "cni.dev/valid-attachments"`);
  }
  const valid = conf.attachments.map((each) => isObject(each) ? each["containerID"] : undefined);
  for (const id of await listStates(conf)) {
    const state = valid.includes(id) ? undefined : await readState(conf, id);
    // Those of other networks in the same directory are not ours to judge.
    if (state === undefined || state === "broken" || state.value["name"] !== conf.name) continue;
    await ifPresent(Deno.remove(stateFile(conf, id)));
  }
  const { type = "bridge" } = conf.delegate;
  const config = {
    ...conf.delegate,
    ...{ name: conf.name, type, cniVersion: conf.cniVersion },
    ipam: { type: "host-local", ...conf.ipam },
    "cni.dev/valid-attachments": conf.attachments,
  };
  await runDelegate(String(type), renderJson(config), environment, signal);
  return "";
}

function stateFile({ dataDir }: NetConf, containerId: string): string {
  return `${dataDir}/${containerId}`;
}

async function listStates({ dataDir }: NetConf): Promise<string[]> {
  const names = await ifPresent(Array.fromAsync(Deno.readDir(dataDir)));
  return names?.filter(({ isFile, name }) => isFile && NAME.test(name)).map(({ name }) => name) ??
    [];
}

/** The delegate's config that an ADD has left; `undefined` if there was none. */
async function readState(conf: NetConf, containerId: string) {
  const text = await ifPresent(Deno.readTextFile(stateFile(conf, containerId)));
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (!isObject(value) || typeof value["type"] !== "string" || !isObject(value["ipam"])) {
      return "broken";
    }
    return { text, value, type: value["type"] };
  } catch {
    return "broken";
  }
}

async function readPodNetwork({ subnetFile }: NetConf, code: number): Promise<PodNetwork> {
  try {
    return parsePodNetwork(await Deno.readTextFile(subnetFile));
  } catch (error) {
    throw new CniFailure(
      code,
      `failed to load flannel 'subnet.env' file: ${subnetFile}: ` +
        `${
          error instanceof Error ? error.message : error
        }. Check the log of flanneld on this node.`,
    );
  }
}

/** A delegate's result, with the config's version where it names none. */
function withVersion(result: string, { cniVersion }: NetConf): string {
  const value: unknown = JSON.parse(result);
  return isObject(value) && !value["cniVersion"]
    ? JSON.stringify({ ...value, cniVersion }) + "\n"
    : result;
}
