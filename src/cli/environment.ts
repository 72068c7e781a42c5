/**
 * The environment as it was meant: what env files of other systems add to values, and variables of
 * packages and scripts that are not ours although their names are near.
 *
 * @module
 */
import { nearest } from "../util/nearest.ts";
import { environmentName, type Flag, FLAGS, FLAGS_WITH_VARIABLE } from "./flags.ts";

/** Variables by name, as `Deno.env.toObject()` returns them. */
export type Environment = Readonly<Record<string, string | undefined>>;

const SECRETS: ReadonlySet<string> = new Set(
  FLAGS.filter((flag: Flag) => flag.secret).map(({ name }) => environmentName(name)),
);

/**
 * `environment` without blanks and line ends around its values: an env file that was saved with
 * CRLF leaves a carriage return at the end of each. Of a password, blanks are a part.
 */
export function cleanEnvironment(environment: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value = ""]) => [
      name,
      SECRETS.has(name) ? withoutLineEnds(value) : value.trim(),
    ]),
  );
}

/** `text` without carriage returns and line feeds around it. */
export function withoutLineEnds(text: string): string {
  return text.replace(/^[\r\n]+/, "").replace(/[\r\n]+$/, "");
}

/** subnet.env's own names, which a unit may well hand to everything it starts. */
const SUBNET_ENV_NAME = /^FLANNEL_(?:(?:IPV6_)?(?:NETWORK|SUBNET)|MTU|IPMASQ)$/;

/** What /etc/sysconfig/flanneld of distributions calls flags of other names. */
const PACKAGE_NAMES: ReadonlyMap<string, string> = new Map([
  ["ETCD", "ETCD_ENDPOINTS"],
  ["ETCD_KEY", "ETCD_PREFIX"],
]);

/** Whole command lines, which only a script or a unit can take apart. */
const COMMAND_LINE_NAME = /^(?:EXTRA_)?(?:OPTIONS|OPTS|FLAGS|ARGS)$/;

/**
 * Warns of variables that are near one of ours and have no effect, unless what they ask for is set
 * in the right way, too (`isSet` by name of flag, `args` for whole command lines).
 */
export function explainVariables(
  environment: Environment,
  { args, isSet }: {
    readonly args: readonly string[];
    readonly isSet: (flagName: string) => boolean;
  },
): string[] {
  const flags = new Map(
    FLAGS_WITH_VARIABLE.map((
      { name },
    ) => [environmentName(name).slice("FLANNELD_".length), name as string]),
  );
  return Object.entries(environment).flatMap(([variable, value]) => {
    const match = /^FLANNEL(D?)_(.+)$/.exec(variable);
    if (match === null || !value || SUBNET_ENV_NAME.test(variable)) return [];
    const [, d, name] = match as unknown as [string, string, string];
    if (d === "D" && flags.has(name)) return [];
    if (COMMAND_LINE_NAME.test(name)) {
      // A unit or script has made arguments of it.
      if (value.split(/\s+/).every((word) => word === "" || args.includes(word))) return [];
      return `${variable} is not read by flanneld itself; give its flags as arguments, or each ` +
        "as a variable such as FLANNELD_IFACE";
    }
    // Kubernetes and unit files may set variables of other meaning; only likely slips are told.
    const hint = d === ""
      ? PACKAGE_NAMES.get(name) ?? (flags.has(name) ? name : nearest(name, flags.keys()))
      : nearest(name, flags.keys());
    if (hint === undefined || isSet(flags.get(hint)!)) return [];
    return `${variable} is not known and has no effect; did you mean FLANNELD_${hint}?`;
  });
}
