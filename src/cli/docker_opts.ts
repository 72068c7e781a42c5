/**
 * The arguments of `flanneld docker-opts`: those of upstream's mk-docker-opts.sh, in the syntax of
 * `getopts`, and one of ours.
 *
 * @module
 */
import { UsageError } from "../errors.ts";
import { nearest } from "../util/nearest.ts";
import type { Argument } from "./flags.ts";
import { quote } from "./quote.ts";

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

/** One of these flags: a letter but for `config-file`. */
interface DockerFlag extends Argument {
  /** The option that it sets: to its value, or without one to `sets`. */
  readonly option: keyof DockerOptions;
  readonly sets?: boolean;
}

/** The flags, in the order of the help. */
export const DOCKER_FLAGS: readonly DockerFlag[] = [
  {
    name: "f",
    option: "subnetFile",
    value: "FILE",
    help: `subnet file to read (default ${DEFAULTS.subnetFile})`,
  },
  {
    name: "d",
    option: "output",
    value: "FILE",
    help: `environment file to write (default ${DEFAULTS.output})`,
  },
  {
    name: "i",
    option: "individual",
    sets: true,
    help: "write each option as a variable, such as DOCKER_OPT_MTU",
  },
  {
    name: "c",
    option: "combined",
    sets: true,
    help: "write all options into one variable; without -i and -c, both",
  },
  {
    name: "k",
    option: "combinedKey",
    value: "NAME",
    help: `name of that variable (default ${DEFAULTS.combinedKey})`,
  },
  { name: "m", option: "ipMasq", sets: false, help: "leave out --ip-masq" },
  {
    name: "config-file",
    option: "configFile",
    value: "FILE",
    help:
      `dockerd's own file, which must not give the same options (default ${DEFAULTS.configFile})`,
  },
];

const BY_LETTER: ReadonlyMap<string, DockerFlag> = new Map(
  DOCKER_FLAGS.map((flag) => [flag.name, flag]),
);

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
      const hint = nearest(word.replace(/^--?/, "").replace(/=[^]*$/, ""), ["config-file", "help"]);
      faults.push(
        `Unexpected argument ${quote(word)}: docker-opts takes flags only; ` +
          (hint === undefined ? "see --help" : `did you mean --${hint}?`),
      );
      continue;
    }
    for (let letters = word.slice(1); letters !== "";) {
      const [letter] = letters;
      letters = letters.slice(letter!.length);
      const flag = BY_LETTER.get(letter!);
      if (flag?.sets !== undefined) {
        options = { ...options, [flag.option]: flag.sets };
      } else if (flag !== undefined) {
        const value = letters === "" ? rest.shift() : letters;
        if (value) options = { ...options, [flag.option]: value };
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
