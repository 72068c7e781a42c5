/**
 * The arguments of `flanneld docker-opts`: those of upstream's mk-docker-opts.sh, in the syntax of
 * `getopts`, and one of ours.
 *
 * @module
 */
import { UsageError } from "../errors.ts";
import { quote } from "./faults.ts";

/** What `flanneld docker-opts` reads and writes. */
export interface DockerOptions {
  readonly subnetFile: string;
  /** The environment file to write. */
  readonly output: string;
  /** Whether to write one variable per option, such as `DOCKER_OPT_MTU`. */
  readonly individual: boolean;
  /** Whether to write all options into one variable, whose name is `combinedKey`. */
  readonly combined: boolean;
  readonly combinedKey: string;
  readonly ipMasq: boolean;
  /** dockerd's own options, which must not give any of these again. */
  readonly configFile: string;
}

const DEFAULTS: DockerOptions = {
  subnetFile: "/run/flannel/subnet.env",
  output: "/run/docker_opts.env",
  individual: false,
  combined: false,
  combinedKey: "DOCKER_OPTS",
  ipMasq: true,
  configFile: "/etc/docker/daemon.json",
};

const SWITCHES: Readonly<Record<string, Partial<DockerOptions>>> = {
  i: { individual: true },
  c: { combined: true },
  m: { ipMasq: false },
};

const VALUES: Readonly<Record<string, "subnetFile" | "output" | "combinedKey">> = {
  f: "subnetFile",
  d: "output",
  k: "combinedKey",
};

/** What `--help` says of these arguments, beside {@linkcode DEFAULTS}. */
export const DOCKER_OPTS_HELP = `docker-opts:
  -f FILE                         subnet file to read (default ${DEFAULTS.subnetFile})
  -d FILE                         environment file to write (default ${DEFAULTS.output})
  -i                              write each option as a variable, such as DOCKER_OPT_MTU
  -c                              write all options into one variable; without -i and -c, both
  -k NAME                         name of that variable (default ${DEFAULTS.combinedKey})
  -m                              leave out --ip-masq
  --config-file=FILE              refuse options that this file of dockerd gives, too
                                  (default ${DEFAULTS.configFile})
`;

/**
 * Reads what follows `docker-opts`; `undefined` asks for help.
 *
 * @throws {UsageError} With one line for each fault.
 */
export function parseDockerOptions(args: readonly string[]): DockerOptions | undefined {
  let options = DEFAULTS;
  const faults: string[] = [];
  const rest = [...args];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const long = /^--?(help|config-file)(?:=([^]*))?$/.exec(word);
    if (word === "-h" || word === "-?" || long?.[1] === "help") return undefined;
    if (long) {
      const configFile = long[2] ?? rest.shift();
      if (configFile) options = { ...options, configFile };
      else faults.push("Flag --config-file needs a value, as in --config-file=FILE");
      continue;
    }
    if (!/^-[^-]/.test(word)) {
      faults.push(`Unexpected argument ${quote(word)}: docker-opts takes flags only; see --help`);
      continue;
    }
    for (let letters = word.slice(1); letters !== "";) {
      const [letter] = letters;
      letters = letters.slice(letter!.length);
      if (Object.hasOwn(SWITCHES, letter!)) {
        options = { ...options, ...SWITCHES[letter!] };
      } else if (Object.hasOwn(VALUES, letter!)) {
        const value = letters === "" ? rest.shift() : letters;
        if (value) options = { ...options, [VALUES[letter!]!]: value };
        else faults.push(`Flag -${letter} needs a value, as in -${letter} VALUE`);
        letters = "";
      } else {
        faults.push(`Unknown flag ${quote(`-${letter}`)} of docker-opts; see --help for all flags`);
        letters = "";
      }
    }
  }
  if (!/^[A-Za-z_]\w*$/.test(options.combinedKey)) {
    faults.push(
      `Invalid value ${quote(options.combinedKey)} for -k: it must be a variable's name`,
    );
  }
  if (faults.length > 0) throw new UsageError(faults.join("\n"));
  const both = !options.individual && !options.combined;
  return both ? { ...options, individual: true, combined: true } : options;
}
