import { DOCKER_OPTS_HELP } from "./docker_opts.ts";
import { type Flag, FLAGS, GROUPS } from "./flags.ts";

const WIDTH = 98;
const HELP_COLUMN = 34;
/** Keeps words together until a text is wrapped. */
const NO_BREAK_SPACE = "\u00a0";

/** What `--help` prints: every flag by group, in less than 100 columns. */
export function usage(): string {
  const groups = GROUPS.map((group) => {
    const flags: Flag[] = FLAGS.filter((flag) => flag.group === group);
    const refused = flags.filter((flag) => flag.refused !== undefined);
    const lines = [
      ...flags.filter((flag) => flag.refused === undefined).flatMap(describeFlag),
      ...wrap(refused.map(({ name }) => `--${name}`).join(", "), WIDTH - 2).map((each) =>
        `  ${each}`
      ),
    ];
    return `${group}:\n${lines.join("\n")}\n`;
  });
  return `flanneld leases this host a subnet of a shared network and makes it reachable

Usage: flanneld [flags]
       flanneld cleanup [--release] [flags]
       flanneld docker-opts [-f FILE] [-d FILE] [-i] [-c] [-k NAME] [-m] [--config-file=FILE]
       flanneld self-test

With cleanup, removes the links, routes, traffic rules and the subnet file that runs with the same
flags left on this host, and with --release the lease. No flanneld may be running meanwhile.
With docker-opts, writes dockerd's options for this host's subnet, as mk-docker-opts.sh does.
With self-test, tries each part of the program that is loaded late, and names those that are lost.

${groups.join("\n")}
${DOCKER_OPTS_HELP}
Flags may be written with one or two dashes, as --name=value or --name value; booleans take a
value only with "=". Each can be given in the environment instead: FLANNELD_ and its name in upper
case with "_" for "-", such as FLANNELD_ETCD_ENDPOINTS.

Exit status: 0 after SIGINT, SIGTERM or a clean-up, 1 if manual action is required first, 2 for
wrong usage.
`;
}

function describeFlag(flag: Flag): string[] {
  const dashes = flag.name.length === 1 ? "-" : "--";
  const left = `  ${dashes}${flag.name}${flag.type === "bool" ? "" : `=${flag.value}`}`;
  const right = wrap(flag.help + describeDefault(flag), WIDTH - HELP_COLUMN);
  const first = left.length < HELP_COLUMN - 1 ? [left.padEnd(HELP_COLUMN) + right.shift()] : [left];
  return [...first, ...right.map((line) => " ".repeat(HELP_COLUMN) + line)];
}

function describeDefault({ type, default: value }: Flag): string {
  if (value === "" || value === false || type === "list") return "";
  const text = type === "bool" ? "true; off with =false" : String(value);
  return ` (default ${text})`.replaceAll(/(?<=.) /g, NO_BREAK_SPACE);
}

function wrap(text: string, width: number): string[] {
  if (text === "") return [];
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else {
      lines.push(word);
    }
  }
  return lines.map((line) => line.replaceAll(NO_BREAK_SPACE, " "));
}
