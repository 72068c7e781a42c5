import { UsageError } from "../errors.ts";
import { nearest } from "../util/nearest.ts";
import { environmentName, type Flag, type FlagName, FLAGS, type FlagValues } from "./flags.ts";
import { parseGoBoolean, parseGoInteger } from "./go_syntax.ts";
import { type Options, readOptions } from "./options.ts";

/** What the user asked for. */
export type CommandLine =
  | { readonly action: "help" }
  | { readonly action: "version" }
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

/**
 * Reads the arguments: flags alone, or `cleanup` and flags, one of which may be `--release`.
 *
 * @throws {UsageError} With one line for each fault; a line never holds a secret.
 */
export function parseCommandLine(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): CommandLine {
  if (args[0] !== "cleanup") return parseFlags(args, environment);
  const [, ...rest] = args;
  let release = false;
  for (const argument of rest) {
    const match = RELEASE.exec(argument);
    if (!match) continue;
    const value = parseGoBoolean(match[1] ?? "true");
    if (value === undefined) {
      throw new UsageError(
        `Invalid value ${quote(match[1]!)} for --release: it must be true or false`,
      );
    }
    release = value;
  }
  const command = parseFlags(rest.filter((argument) => !RELEASE.test(argument)), environment);
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
  environment: Readonly<Record<string, string | undefined>>,
): Exclude<CommandLine, { readonly action: "cleanup" }> {
  const faults: string[] = [];
  const warnings: string[] = [];
  const settings = readArguments(args, faults);
  if (settings.get("help")?.value === true) return { action: "help" };
  if (faults.length === 0 && settings.get("version")?.value === true) return { action: "version" };
  readEnvironment(environment, settings, faults, warnings);
  refuseUnavailable(settings, faults);

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
  });
  if (values["no-masq-cidr"].length > 0 && !values["ip-masq"]) {
    warnings.push("--no-masq-cidr has no effect without --ip-masq");
  }
  if (faults.length > 0) throw new UsageError(faults.join("\n"));
  return { action: "run", options, warnings };
}

function readArguments(args: readonly string[], faults: string[]): Map<FlagName, Setting> {
  const settings = new Map<FlagName, Setting>();
  /** The flag before, if a leftover may belong to it. */
  let previous: Flag | undefined;
  for (let index = 0; index < args.length; index++) {
    const argument = args[index]!;
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
      faults.push(describeUnknown(name));
      // Whatever it is, its value is no fault of its own.
      if (match[2] === undefined && /^[^-]/.test(args[index + 1] ?? "-")) index++;
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

function readEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  settings: Map<FlagName, Setting>,
  faults: string[],
  warnings: string[],
): void {
  const variables = new Map(
    FLAGS.filter(({ name }) => name !== "help" && name !== "version")
      .map((flag) => [environmentName(flag.name), flag]),
  );
  for (const [variable, flag] of variables) {
    const text = environment[variable];
    if (text === undefined || text === "" || settings.has(flag.name)) continue;
    const value = parseValue(flag, text, variable, faults);
    if (value !== undefined) settings.set(flag.name, { value, source: variable });
  }
  for (const [variable, text] of Object.entries(environment)) {
    if (!variable.startsWith("FLANNELD_") || variables.has(variable) || !text) continue;
    // Kubernetes and unit files may set variables of other meaning; only likely slips are told.
    const names = [...variables.keys()].map((each) => each.slice("FLANNELD_".length));
    const hint = nearest(variable.slice("FLANNELD_".length), names);
    if (hint !== undefined) {
      warnings.push(`${variable} is not known and has no effect; did you mean FLANNELD_${hint}?`);
    }
  }
}

/** A value of the flag's type, or `undefined` and a fault. */
function parseValue(
  flag: Flag,
  text: string,
  source: string,
  faults: string[],
): Value | undefined {
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

/** Asking for the default of a flag that is not available asks for nothing, and is accepted. */
function refuseUnavailable(settings: ReadonlyMap<FlagName, Setting>, faults: string[]): void {
  for (const [name, { value, source }] of settings) {
    const flag: Flag = BY_NAME.get(name)!;
    if (flag.refused !== undefined && value !== flag.default) {
      faults.push(`${source} is not available in this version; ${flag.refused}`);
    }
  }
}

function badValue(flag: Flag, source: string, text: string, mustBe: string): string {
  const shown = flag.secret ? "" : ` ${quote(text)}`;
  return `Invalid value${shown} for ${source}: ${mustBe}`;
}

function describeUnknown(name: string): string {
  const secret = SECRET_FLAGS.find((each) => name.startsWith(each));
  if (secret !== undefined) return `Unknown flag that starts with --${secret}`; // quote no secret
  const hint = nearest(name, BY_NAME.keys());
  const shown = /^[\w.-]{1,64}$/.test(name) ? `--${name}` : quote(`--${name}`);
  return `Unknown flag ${shown}; ` +
    (hint === undefined ? "see --help for all flags" : `did you mean --${hint}?`);
}

function describeLeftover(leftover: string, previous: Flag | undefined): string {
  if (previous?.type === "bool") {
    return `Unexpected argument ${quote(leftover)} after --${previous.name}: ` +
      `a boolean takes its value with "=", as in --${previous.name}=false`;
  }
  // Behind a secret it may be the rest of one that was not quoted in the shell.
  if (previous?.secret) return `Unexpected argument after the value of --${previous.name}`;
  return `Unexpected argument ${quote(leftover)}: flanneld takes flags only`;
}

function placeholder(flag: Flag): string {
  return flag.value ?? "VALUE";
}

/** In quotes, on one line, short, and without what may be the credentials of a URL. */
function quote(text: string): string {
  const bare = text.replace(/^([a-z]+:\/\/)?[^]*@/i, "$1…@");
  return JSON.stringify(bare.length > 100 ? `${bare.slice(0, 100)}…` : bare);
}
