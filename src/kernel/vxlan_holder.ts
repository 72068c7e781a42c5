/**
 * Finds what holds the VNI or UDP port that one of our VXLAN devices needs: another device, such as
 * Cilium's, or a process.
 *
 * @module
 */
import type { LinkSpec } from "../state/mod.ts";
import { ProgramNotFoundError, runProgram } from "../util/process.ts";
import type { Link } from "./netlink.ts";

/** The remedy in either case. */
const ADVICE = "give this network another VNI or Port in the Backend of its config, or the other " +
  "one another";

/**
 * A clause that names who is in the way of VXLAN device `desired`, after the kernel returned
 * `EEXIST` (a device with the VNI) or `EADDRINUSE` (a socket at the port); `undefined` if
 * no holder is found.
 */
export async function describeVxlanHolder(
  { name, vxlan }: Pick<LinkSpec, "name" | "vxlan">,
  code: "EEXIST" | "EADDRINUSE",
  links: readonly Link[],
  options: { signal: AbortSignal },
): Promise<string | undefined> {
  if (!vxlan) return undefined;
  const { vni, port } = vxlan;
  const others = links.filter((link) => link.vxlan?.port === port && link.name !== name);
  const device = others.find((link) =>
    code === "EADDRINUSE" ? link.up : link.vxlan!.vni === vni || link.vxlan!.otherModes.length > 0
  );
  if (device) {
    const held = code === "EEXIST" ? `VNI ${vni} at UDP port ${port}` : `UDP port ${port}`;
    return `VXLAN device ${device.name} holds ${held} on this host: ${ADVICE}, or remove it with ` +
      `"ip link delete ${device.name}" if it is not needed`;
  }
  if (code === "EEXIST") return undefined;
  const process = await findProcess(port, options);
  return `${process ?? "a process"} holds UDP port ${port} on this host` +
    `${process ? "" : ` (see "ss -lunp sport = :${port}")`}: ${ADVICE}, or stop it`;
}

/** `process python3 (pid 7)` for the owner of the UDP socket at `port`, if visible. */
async function findProcess(
  port: number,
  options: { signal: AbortSignal },
): Promise<string | undefined> {
  try {
    const wholeEnv = { PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin" };
    const args = ["-lunpH", "sport", "=", `:${port}`];
    const { stdout } = await runProgram("ss", args, { ...options, wholeEnv });
    const [, name, pid] = /\(\("([^"]*)",pid=(\d+)/.exec(stdout) ?? [];
    return name === undefined ? undefined : `process ${name} (pid ${pid})`;
  } catch (error) {
    if (error instanceof ProgramNotFoundError) return undefined;
    throw error;
  }
}
