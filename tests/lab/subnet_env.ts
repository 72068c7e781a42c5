import { InterfaceAddress, Prefix } from "../../src/net/mod.ts";

/** What subnet.env has for an address family. */
export interface SubnetEnvFamily {
  readonly network: Prefix;
  /** The bridge's address, the first of the host's subnet. */
  readonly subnet: InterfaceAddress;
}

/** What a host's subnet.env tells the programs that set up pods. */
export interface SubnetEnv extends SubnetEnvFamily {
  /** IPv4 before IPv6; `network` and `subnet` are those of the first. */
  readonly families: readonly SubnetEnvFamily[];
  readonly mtuBytes: number;
  readonly ipMasq: boolean;
}

/**
 * The values in the text of a subnet.env, read as data: a file that a shell would have to run to
 * understand is refused.
 *
 * @throws {SyntaxError} If a line is not `NAME=value` or a value is missing or wrong.
 */
export function parseSubnetEnv(text: string): SubnetEnv {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const match = /^(FLANNEL_[A-Z0-9_]+)=([0-9A-Za-z.:/]*)$/.exec(line);
    if (!match) throw new SyntaxError(`Cannot read subnet.env: "${line}" is not NAME=value`);
    values.set(match[1]!, match[2]!);
  }
  const value = (name: string) => {
    const text = values.get(name);
    if (text === undefined) throw new SyntaxError(`Cannot read subnet.env: ${name} is missing`);
    return text;
  };
  const mtuBytes = Number(value("FLANNEL_MTU"));
  if (!Number.isInteger(mtuBytes) || mtuBytes < 576 || mtuBytes > 65_535) {
    throw new SyntaxError(`Cannot read subnet.env: FLANNEL_MTU=${value("FLANNEL_MTU")} is no MTU`);
  }
  const ipMasq = value("FLANNEL_IPMASQ");
  if (ipMasq !== "true" && ipMasq !== "false") {
    throw new SyntaxError(`Cannot read subnet.env: FLANNEL_IPMASQ=${ipMasq} is no boolean`);
  }
  const families = ["FLANNEL", "FLANNEL_IPV6"].filter((name) => values.has(`${name}_NETWORK`))
    .map((name) => ({
      network: Prefix.parse(value(`${name}_NETWORK`)),
      subnet: InterfaceAddress.parse(value(`${name}_SUBNET`)),
    }));
  const [first] = families;
  if (!first) throw new SyntaxError("Cannot read subnet.env: FLANNEL_NETWORK is missing");
  return {
    ...first,
    families,
    mtuBytes,
    ipMasq: ipMasq === "true",
  };
}
