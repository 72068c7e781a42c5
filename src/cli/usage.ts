/**
 * What `--help` prints.
 *
 * @module
 */
import { COMMANDS, EXIT_CODES } from "./commands.ts";
import { DOCKER_FLAGS } from "./docker_opts.ts";
import { type Argument, type Flag, FLAGS, GROUPS, withDashes } from "./flags.ts";

const WIDTH = 98;
const HELP_COLUMN = 34;
const COMMAND_COLUMN = 6;
/** Keeps words together until a text is wrapped. */
const NO_BREAK_SPACE = "\u00a0";

/** Every command, and every flag by group, within 100 columns. */
export function usage(): string {
  const groups = GROUPS.map((group) => {
    const flags: Flag[] = FLAGS.filter((flag) => flag.group === group);
    const lines = flags.flatMap((flag) =>
      describe({ ...flag, help: flag.help + describeDefault(flag) })
    );
    return `${group}:\n${lines.join("\n")}\n`;
  });
  return `flanneld leases this host a subnet of a shared network and makes it reachable

Usage: flanneld [flags]           run the daemon in the foreground
       flanneld COMMAND …

Commands:
${COMMANDS.flatMap(describeCommand).join("\n")}

${groups.join("\n")}
docker-opts:
${DOCKER_FLAGS.flatMap(describe).join("\n")}

Flags may be written with one or two dashes, as --name=value or --name value; booleans take a
value only with "=". Each can be given in the environment instead: FLANNELD_ and its name in upper
case with "_" for "-", such as FLANNELD_ETCD_ENDPOINTS.

Exit status:
${EXIT_CODES.map(([code, when]) => `  ${code}  ${when}`).join("\n")}
`;
}

function describeCommand({ name, synopsis, help }: typeof COMMANDS[number]): string[] {
  return [
    `  ${name} ${synopsis}`.trimEnd(),
    ...wrap(help, WIDTH - COMMAND_COLUMN).map((line) => " ".repeat(COMMAND_COLUMN) + line),
  ];
}

function describe({ name, value, help }: Argument): string[] {
  const left = `  ${withDashes(name)}${
    value === undefined ? "" : `${name.length === 1 ? " " : "="}${value}`
  }`;
  const right = wrap(help, WIDTH - HELP_COLUMN);
  const first = left.length < HELP_COLUMN - 1 ? [left.padEnd(HELP_COLUMN) + right.shift()] : [left];
  return [...first, ...right.map((line) => " ".repeat(HELP_COLUMN) + line)];
}

/** What of the default a reader has to be told. */
export function describeDefault({ type, default: value }: Flag): string {
  if (value === "" || value === false || type === "list") return "";
  const text = type === "bool" ? "true; off with =false" : String(value);
  return ` (default ${text})`.replaceAll(/(?<=.) /g, NO_BREAK_SPACE);
}

/** Lines of at most `width` characters, unless a word is longer. */
export function wrap(text: string, width: number): string[] {
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
