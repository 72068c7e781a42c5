/**
 * What is said of a command line that is not understood: one line for each fault, with what was
 * likely meant. No line holds a secret.
 *
 * @module
 */
import { describeCharacter, firstOddCharacter } from "../util/characters.ts";
import { nearest, oneOf } from "../util/nearest.ts";
import { COMMANDS } from "./commands.ts";
import { type Flag, FLAGS } from "./flags.ts";
import { quote } from "./quote.ts";

const COMMAND_NAMES: readonly string[] = COMMANDS.map(({ name }) => name);
const NAMES: readonly string[] = FLAGS.map(({ name }) => name);
const SECRET_NAMES: readonly string[] = FLAGS.filter((flag: Flag) => flag.secret)
  .map(({ name }) => name);

/** Characters that are taken for quotes. */
const QUOTE = `["'\`\u00ab\u00bb\u2018-\u201f\u300c-\u300f]`;
const QUOTED = new RegExp(`^${QUOTE}[^]*${QUOTE}$`);

/** What looks like the "-" that a flag begins with. */
const DASH = /^[\u2010-\u2015\u2212\uff0d]/;

/** Words that other programs take for commands, and what does here what they ask for. */
const FOREIGN_COMMANDS: Readonly<Record<string, string>> = {
  usage: "did you mean --help?",
  status: "/status tells it, with --healthz-port",
  health: "/readyz tells it, with --healthz-port",
  clean: 'did you mean "flanneld cleanup"?',
  uninstall: 'did you mean "flanneld cleanup"?',
  release: 'did you mean "flanneld cleanup --release"?',
  "mk-docker-opts": 'did you mean "flanneld docker-opts"?',
  run: "without a command it runs",
  start: "without a command it runs",
  daemon: "without a command it runs",
  stop: "SIGTERM stops it",
  restart: "SIGTERM stops it",
};

/** `Invalid value "x" for --iface: it must be …` */
export function badValue(flag: Flag, source: string, text: string, mustBe: string): string {
  const shown = flag.secret ? "" : ` ${quote(text)}`;
  const odd = flag.secret ? undefined : firstOddCharacter(text);
  return `Invalid value${shown} for ${source}: ${mustBe}` +
    (odd === undefined ? "" : `; it holds ${odd}`);
}

/** What no value of `flag` may be, though its type takes every text; if `text` is that. */
export function unlikelyText(flag: Flag, text: string): string | undefined {
  if (flag.secret) return undefined;
  if (QUOTED.test(text)) return "it must be written without quotes";
  // A line of several flags that reached us as one argument, or as one variable.
  const other = / --?([a-z][\w-]*)/.exec(text)?.[1];
  if (other === undefined || !NAMES.includes(other)) return undefined;
  return `it must not hold another flag: give --${other} as an argument of its own`;
}

/** An argument whose "-" is another character; `undefined` for all others. Quotes no value. */
export function describeDash(argument: string): string | undefined {
  if (!DASH.test(argument)) return undefined;
  const name = argument.replace(/^[-\u2010-\u2015\u2212\uff0d]+/, "").replace(/[=\s][^]*$/, "");
  const what = NAMES.includes(name) ? `the argument for ${name}` : "an argument";
  return `Cannot read ${what}: it begins with ${describeCharacter(argument)}, where "-" is needed`;
}

/** A flag that there is not; `also` are names that this command takes besides all others. */
export function describeUnknown(name: string, also: readonly string[]): string {
  const secret = SECRET_NAMES.find((each) => name.startsWith(each));
  if (secret !== undefined) return `Unknown flag that starts with --${secret}`; // quote no secret
  const shown = /^[\w.-]{1,64}$/.test(name) ? `--${name}` : quote(`--${name}`);
  if (name === "release") return `Unknown flag --release; it belongs to "flanneld cleanup"`;
  const hint = nearest(name.trim(), [...NAMES, ...also]);
  return `Unknown flag ${shown}; ` +
    (hint === undefined ? "see --help for all flags" : `did you mean --${hint}?`);
}

/** An argument where a flag should be; `previous` is the flag that it may belong to. */
export function describeLeftover(leftover: string, previous: Flag | undefined): string {
  if (previous?.type === "bool") {
    return `Unexpected argument ${quote(leftover)} after --${previous.name}: ` +
      `a boolean takes its value with "=", as in --${previous.name}=false ` +
      `(upstream reads --${previous.name} alone here, and nothing of what follows)`;
  }
  // Behind a secret it may be the rest of one that was not quoted in the shell.
  if (previous?.secret) return `Unexpected argument after the value of --${previous.name}`;
  if (leftover.trim() === "") {
    return `Unexpected argument ${quote(leftover)}: flanneld takes flags only; ` +
      (leftover === "" ? "is a variable empty?" : "does a script have Windows line ends?");
  }
  const hint = suggestion(leftover.trim());
  return `Unexpected argument ${quote(leftover)}: flanneld takes flags only` +
    (hint === undefined ? "" : `; ${hint}`);
}

function suggestion(word: string): string | undefined {
  const name = word.replace(/=[^]*$/, "");
  const folded = word.toLowerCase();
  const command = COMMAND_NAMES.find((each) => each === word);
  if (command !== undefined) return `it comes first, as in "flanneld ${command}"`;
  if (NAMES.includes(name) && name.length > 1) return `did you mean --${name}?`;
  if (Object.hasOwn(FOREIGN_COMMANDS, folded)) return FOREIGN_COMMANDS[folded];
  // Dashes are what people differ about: "clean-up".
  const bare = (text: string) => text.replaceAll(/[-_]/g, "");
  const all = new Map([...COMMAND_NAMES, ...Object.keys(FOREIGN_COMMANDS)]
    .map((each) => [bare(each), each]));
  const near = all.get(nearest(bare(folded), all.keys()) ?? "");
  return near === undefined || Object.hasOwn(FOREIGN_COMMANDS, near)
    ? FOREIGN_COMMANDS[near ?? ""]
    : `did you mean "flanneld ${near}"?`;
}

/** What follows `command`, which takes one of `choices`. */
export function describeChoice(
  command: string,
  words: readonly string[],
  choices: readonly string[],
): string {
  if (words.length !== 1) return `"flanneld ${command}" takes ${oneOf(choices, "")}`;
  const [word] = words as [string];
  return `Unexpected argument ${quote(word)}: "flanneld ${command}" takes ${oneOf(choices, word)}`;
}
