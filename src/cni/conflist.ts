/**
 * The CNI config that the daemon writes where it is asked to: plain `bridge` and `portmap`, so that a
 * pod's start runs no process of ours.
 *
 * @module
 */
import { removeFile } from "../host/atomic_file.ts";
import { readSubnetFile, type SubnetFileSpec, SubnetFileTable } from "../host/subnet_file_table.ts";
import type { Logger } from "../log.ts";
import type { Stage } from "../reconcile/reconciler.ts";
import type { Kind } from "../reconcile/table.ts";
import { isObject } from "../util/json_object.ts";
import { parsePodNetwork, renderDelegate } from "./netconf.ts";

/** What tells our file; runtimes skip members that they do not know. */
const OURS = { managedBy: "flanneld" };

/** The plug-ins that the file, and each runtime, call for. */
const PLUGINS = ["bridge", "host-local", "portmap", "loopback"];
/** Where runtimes and distributions keep plug-ins. */
const DIRECTORIES = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

const FLAG = "--cni-conf-file";

/** The file as an object of a Table. A file of somebody else is left as it is. */
const conflistKind: Kind<SubnetFileSpec> = {
  id: "cni-conf-file",
  name: "CNI config file",
  key: ({ path }) => path,
  equal: (desired, actual) => desired.text === actual.text,
  owns: ({ text }) => isOurConflist(text),
  format: ({ path }) => path,
  adviseConflict: () => "remove it, or choose another name with " + FLAG,
};

/** Whether a file with this text is one that flanneld wrote. */
function isOurConflist(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) && value["managedBy"] === OURS.managedBy;
  } catch {
    return false;
  }
}

/** The config for the network of `subnetEnv`, with what upstream's manifest gives its delegate. */
export function renderConflist(subnetEnv: string): string {
  const { name, ...bridge } = renderDelegate({
    name: "cbr0",
    givenVersion: undefined,
    delegate: { hairpinMode: true, isDefaultGateway: true },
    ipam: {},
    runtimeConfig: undefined,
  }, parsePodNetwork(subnetEnv));
  const plugins = [bridge, { type: "portmap", capabilities: { portMappings: true } }];
  return JSON.stringify({ name, cniVersion: "0.3.1", ...OURS, plugins }, null, 2) + "\n";
}

/** The file at `path` as a Table. */
export function openConflistTable(path: string): SubnetFileTable {
  return new SubnetFileTable(path, { kind: conflistKind, flag: FLAG });
}

/**
 * The stage that writes the file at `path`, if one is wanted; to be the last one, since runtimes start
 * pods once the file is there. Plug-ins that are missing are named once.
 *
 * @param subnetEnv The text of subnet.env; `undefined` until it is written.
 */
export function cniStages(
  path: string | undefined,
  subnetEnv: () => string | undefined,
  log: Pick<Logger, "warn">,
): Stage<SubnetFileSpec>[] {
  if (path === undefined) return [];
  void missingPlugins().then((missing) => {
    if (missing.length === 0) return;
    log.warn(
      `Pods cannot start before the CNI plug-ins ${missing.join(", ")} are installed: ` +
        `they are in none of ${DIRECTORIES.join(", ")}`,
    );
  });
  const desired = () => {
    const text = subnetEnv();
    return text === undefined ? undefined : [{ path, text: renderConflist(text) }];
  };
  return [{ table: openConflistTable(path), desired }];
}

/** Removes the file at `path` if flanneld wrote it; returns whether it did. */
export async function removeConflist(path: string | undefined): Promise<boolean> {
  if (path === undefined || !isOurConflist(await readSubnetFile(path, FLAG) ?? "")) return false;
  return await removeFile(path);
}

/** The plug-ins that no directory of plug-ins has. */
export async function missingPlugins(directories: readonly string[] = DIRECTORIES) {
  const isThere = (path: string) => Deno.stat(path).then(({ isFile }) => isFile, () => false);
  const missing: string[] = [];
  for (const name of PLUGINS) {
    const found = await Promise.all(directories.map((each) => isThere(`${each}/${name}`)));
    if (!found.includes(true)) missing.push(name);
  }
  return missing;
}
