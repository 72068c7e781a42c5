import { UsageError } from "../errors.ts";
import { type CommandName, COMMANDS, type Shell, SHELLS } from "./commands.ts";
import { type DockerOptions, parseDockerOptions } from "./docker_opts.ts";
import {
  cleanEnvironment,
  type Environment,
  explainVariables,
  withoutLineEnds,
} from "./environment.ts";
import {
  badValue,
  describeChoice,
  describeDash,
  describeLeftover,
  describeUnknown,
  unlikelyText,
} from "./faults.ts";
import {
  environmentName,
  type Flag,
  type FlagName,
  FLAGS,
  FLAGS_WITH_VARIABLE,
  type FlagValues,
} from "./flags.ts";
import { type CompilePattern, loadGoRegex, parseGoBoolean, parseGoInteger } from "./go_syntax.ts";
import { type Options, readOptions } from "./options.ts";
import { quote } from "./quote.ts";

/** A command that prints a text which is known beforehand. */
export type PrintCommand =
  | { readonly action: "help" | "version" | "man" }
  | { readonly action: "completion"; readonly shell: Shell };

/** What the user asked for. */
export type CommandLine =
  | PrintCommand
  | { readonly action: "cni" }
  | { readonly action: "self-test" }
  | { readonly action: "check-config"; readonly file: string }
  | { readonly action: "docker-opts"; readonly options: DockerOptions }
  | { readonly action: "run"; readonly options: Options; readonly warnings: readonly string[] }
  | {
    readonly action: "cleanup";
    readonly options: Options;
    readonly warnings: readonly string[];
    /** Whether to give the lease back, too. */
    readonly release: boolean;
  };

/** Flags whose values must not be seen in `ps`; for `hideArguments()`. */
export const SECRET_FLAGS: readonly FlagName[] = FLAGS
  .filter((flag: Flag) => flag.secret)
  .map((flag) => flag.name);

const BY_NAME: ReadonlyMap<string, Flag & { readonly name: FlagName }> = new Map(
  FLAGS.map((flag) => [flag.name, flag]),
);

type Value = string | boolean | number | readonly string[];

/** A flag's value and where it comes from: `--iface` or `FLANNELD_IFACE`. */
interface Setting {
  readonly value: Value;
  readonly source: string;
}

/** `--release`, with a value or without. */
const RELEASE = /^--?release(?:=([^]*))?$/;

/** {@linkcode parseCommandLine}, with the library for regular expressions if one may be given. */
export async function readCommandLine(
  args: readonly string[],
  environment: Environment,
): Promise<CommandLine> {
  const words = [...args, ...Object.keys(environment)];
  const mayHavePatterns = words.some((word) => /iface[-_]regex/i.test(word));
  return parseCommandLine(args, environment, mayHavePatterns ? await loadGoRegex() : undefined);
}

/**
 * Reads the arguments: flags alone, or a command and what may follow it. Blanks and line ends around
 * values do not count.
 *
 * @param compilePattern Needed for `--iface-regex` alone.
 * @throws {UsageError} With one line for each fault; a line never holds a secret.
 */
export function parseCommandLine(
  args: readonly string[],
  environment: Environment,
  compilePattern: CompilePattern = withoutPatterns,
): CommandLine {
  const words = args.map(withoutLineEnds);
  const context = { words, environment: cleanEnvironment(environment), compilePattern };
  const name = COMMANDS.find((command) => command.name === words[0])?.name;
  if (name === undefined) return parseFlags(args, { ...context, faults: [], also: [] });
  const rest = words.slice(1);
  if (name === "cleanup") return parseCleanUp(args, { ...context, words: rest });
  if (name === "docker-opts") {
    const options = parseDockerOptions(rest);
    return options === undefined ? { action: "help" } : { action: "docker-opts", options };
  }
  return parsePlainCommand(name, rest);
}

/** A command without flags of its own. */
function parsePlainCommand(
  name: Exclude<CommandName, "cleanup" | "docker-opts">,
  words: readonly string[],
): CommandLine {
  if (words.some((word) => /^(?:-h|--?help)$/.test(word))) return { action: "help" };
  if (name === "completion") {
    const shell = SHELLS.find((each) => each === words[0]);
    if (shell === undefined || words.length > 1) {
      throw new UsageError(describeChoice(name, words, SHELLS));
    }
    return { action: name, shell };
  }
  const leftover = name === "help" ? undefined : words[0]; // "help cleanup" asks for help, too
  if (leftover !== undefined) {
    throw new UsageError(
      `Unexpected argument ${quote(leftover)}: nothing follows "flanneld ${name}"`,
    );
  }
  return { action: name };
}

/** What {@linkcode parseFlags} is given besides the arguments as they are. */
interface ParseContext {
  /** The arguments that may be flags. */
  readonly words: readonly string[];
  readonly environment: Environment;
  readonly compilePattern: CompilePattern;
}

function parseCleanUp(args: readonly string[], context: ParseContext): CommandLine {
  const faults: string[] = [];
  let release = false;
  const isRelease = (word: string) => RELEASE.test(word);
  for (const word of context.words.filter(isRelease)) {
    const text = RELEASE.exec(word)![1]?.trim() ?? "true";
    const value = parseGoBoolean(text);
    if (value === undefined) {
      faults.push(`Invalid value ${quote(text)} for --release: it must be true or false`);
    } else {
      release = value;
    }
  }
  const words = context.words.filter((word) => !isRelease(word));
  const command = parseFlags(args, { ...context, words, faults, also: ["release"] });
  return command.action === "run" ? { ...command, action: "cleanup", release } : command;
}

/**
 * Reads arguments in the syntax of Go's `flag` package, and `FLANNELD_*` variables for flags that
 * are not among them (empty ones count as unset). Other than upstream, whatever is not understood
 * is an error.
 *
 * @throws {UsageError} With one line for each fault; a line never holds a secret.
 */
function parseFlags(
  args: readonly string[],
  { words, environment, faults, also, compilePattern }: ParseContext & {
    /** What is wrong already; more is added. */
    readonly faults: string[];
    /** Names of flags that are read elsewhere. */
    readonly also: readonly string[];
  },
): CommandLine {
  const warnings: string[] = [];
  const settings = readArguments(words, faults, also);
  if (settings.get("help")?.value === true) return { action: "help" };
  if (faults.length === 0 && settings.get("version")?.value === true) return { action: "version" };
  const file = settings.get("check-config")?.value;
  if (file === "") faults.push("Flag --check-config needs a value, as in --check-config=FILE");
  if (faults.length === 0 && typeof file === "string") return { action: "check-config", file };
  readEnvironment(environment, settings, faults);
  warnings.push(...explainVariables(environment, {
    args,
    isSet: (name) => settings.has(name as FlagName),
  }));

  const values = Object.fromEntries(
    FLAGS.map(({ name, default: fallback }) => [name, settings.get(name)?.value ?? fallback]),
  ) as FlagValues;
  const options = readOptions(values, {
    fault(name, mustBe, value = String(values[name])) {
      // A default is right, so there is always a setting.
      faults.push(badValue(BY_NAME.get(name)!, settings.get(name)!.source, value, mustBe));
    },
    conflict: (sentence) => faults.push(sentence),
    warn: (sentence) => warnings.push(sentence),
  }, compilePattern);
  if (options.noMasqCidr.length > 0 && !values["ip-masq"]) {
    warnings.push("--no-masq-cidr has no effect without --ip-masq");
  }
  if (faults.length > 0) throw new UsageError(faults.join("\n"));
  return { action: "run", options, warnings };
}

function withoutPatterns(): never {
  throw new Error("Cannot compile a pattern: the library is not loaded");
}

function readArguments(
  args: readonly string[],
  faults: string[],
  also: readonly string[],
): Map<FlagName, Setting> {
  const settings = new Map<FlagName, Setting>();
  /** The flag before, if a leftover may belong to it. */
  let previous: Flag | undefined;
  for (let index = 0; index < args.length; index++) {
    const argument = args[index]!;
    const dash = describeDash(argument);
    if (dash !== undefined) {
      faults.push(dash);
      if (isValueOf(argument, args[index + 1])) index++;
      continue;
    }
    if (argument === "--" || !/^-./.test(argument)) {
      const leftover = argument === "--" ? args[index + 1] : argument;
      if (leftover !== undefined) faults.push(describeLeftover(leftover, previous));
      break;
    }
    const match = /^--?([^-=][^=]*)(?:=([^]*))?$/.exec(argument);
    if (match === null) {
      faults.push(`Cannot read argument ${quote(argument)}: flags look like --name=value`);
      continue;
    }
    const name = match[1] === "h" ? "help" : match[1]!;
    const flag = BY_NAME.get(name);
    if (flag === undefined) {
      faults.push(describeUnknown(name, also));
      if (isValueOf(argument, args[index + 1])) index++;
      continue;
    }
    previous = flag.secret || match[2] === undefined ? flag : undefined;
    const text = match[2] ?? (flag.type === "bool" ? "true" : args[++index]);
    if (text === undefined) {
      faults.push(`Flag --${name} needs a value, as in --${name}=${placeholder(flag)}`);
      continue;
    }
    const source = `--${name}`;
    const value = parseValue(flag, text, source, faults);
    if (value === undefined) continue;
    const earlier = flag.type === "list" ? settings.get(flag.name)?.value ?? [] : undefined;
    settings.set(flag.name, {
      value: earlier === undefined ? value : [earlier, value].flat() as readonly string[],
      source,
    });
  }
  return settings;
}

/** Whether `next` belongs to an unknown flag; whatever it is, it is no fault of its own then. */
function isValueOf(argument: string, next: string | undefined): boolean {
  return !argument.includes("=") && next !== undefined &&
    /^[^-\u2010-\u2015\u2212\uff0d]/.test(next);
}

function readEnvironment(
  environment: Environment,
  settings: Map<FlagName, Setting>,
  faults: string[],
): void {
  for (const flag of FLAGS_WITH_VARIABLE) {
    const variable = environmentName(flag.name);
    const text = environment[variable];
    if (text === undefined || text === "" || settings.has(flag.name)) continue;
    const value = parseValue(flag, text, variable, faults);
    if (value !== undefined) settings.set(flag.name, { value, source: variable });
  }
}

/** A value of the flag's type, or `undefined` and a fault. */
function parseValue(
  flag: Flag,
  given: string,
  source: string,
  faults: string[],
): Value | undefined {
  const text = flag.secret ? withoutLineEnds(given) : given.trim();
  const unlikely = unlikelyText(flag, text);
  if (unlikely !== undefined) {
    faults.push(badValue(flag, source, text, unlikely));
    return undefined;
  }
  switch (flag.type) {
    case "string":
      return text;
    case "list":
      return [text];
    case "bool": {
      const value = parseGoBoolean(text);
      if (value === undefined) {
        faults.push(badValue(flag, source, text, "it must be true or false"));
      }
      return value;
    }
    case "int": {
      const value = parseGoInteger(text);
      if (value === undefined) {
        faults.push(badValue(flag, source, text, "it must be a whole number"));
      }
      return value;
    }
  }
}

function placeholder(flag: Flag): string {
  return flag.value ?? "VALUE";
}
