/**
 * Completion of the command line by bash, zsh and fish, from the tables of commands and flags.
 *
 * @module
 */
import { type Command, COMMANDS, type Shell } from "./commands.ts";
import { type Argument, type Flag, FLAGS, withDashes } from "./flags.ts";

/** The script that `shell` is to load. */
export function completion(shell: Shell): string {
  return { bash, zsh, fish }[shell]();
}

const COMMAND_LIST: readonly Command[] = COMMANDS;

/** What the value of a flag may be: some words, or what the shell knows by itself. */
function valuesOf({ name, value = "" }: Argument): readonly string[] | "file" | "link" | undefined {
  if (/^FILE(?:\|-)?$/.test(value)) return "file";
  if (value === "NAME|IP") return "link";
  if (/^[a-z0-9]+(?:\|[a-z0-9]+)+$/.test(value)) return value.split("|");
  return BOOLEANS.has(name) ? ["true", "false"] : undefined;
}

const BOOLEANS: ReadonlySet<string> = new Set(
  FLAGS.filter(({ type, ends }: Flag) => type === "bool" && !ends).map(({ name }) => name),
);
const LISTS: ReadonlySet<string> = new Set(
  FLAGS.filter(({ type }: Flag) => type === "list").map(({ name }) => name),
);

/** Whether the value may be a word of its own, which it may not be of a boolean. */
function takesWord({ value }: Argument): boolean {
  return value !== undefined;
}

/** Every flag of every command, by name. */
const ALL_FLAGS: readonly Argument[] = [
  ...new Map(
    [...FLAGS, ...COMMAND_LIST.flatMap(({ flags }) => flags)].map((flag) => [
      flag.name,
      flag,
    ]),
  ).values(),
];

function bash(): string {
  const shown = (flags: readonly Argument[]) => flags.map(bashWord).join(" ");
  const commands = COMMAND_LIST.map(({ name, flags, words = [] }) =>
    `    ${name}) words="${[...words, shown(flags)].join(" ").trim()}" ;;`
  );
  const values = ALL_FLAGS.flatMap((flag) => {
    const reply = bashValues(flag);
    if (reply === undefined) return [];
    const names = [`-${flag.name}`, `--${flag.name}`];
    const patterns = [...(takesWord(flag) ? names : []), ...names.map((name) => `=${name}`)];
    return `    ${patterns.join("|")}) ${reply}; return ;;`;
  });
  return `# Completion of flanneld for bash, as "flanneld completion bash" prints it.
_flanneld() {
  # "=" is a word of its own to bash.
  local cur=\${COMP_WORDS[COMP_CWORD]} flag=\${COMP_WORDS[COMP_CWORD-1]} equals= words
  COMPREPLY=()
  if [[ $cur == "=" ]]; then
    cur= equals="="
  elif [[ $flag == "=" ]]; then
    flag=\${COMP_WORDS[COMP_CWORD-2]} equals="="
  fi
  case $equals$flag in
${values.join("\n")}
    =*) return ;;
  esac
  case \${COMP_WORDS[1]} in
${commands.join("\n")}
    *) words="${shown(FLAGS)}" ;;
  esac
  if ((COMP_CWORD == 1)); then
    words="${COMMAND_LIST.map(({ name }) => name).join(" ")} ${shown(FLAGS)}"
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
  if [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -F _flanneld flanneld
`;
}

/** A flag as bash completes it: up to the "=" of its value. */
function bashWord(flag: Argument): string {
  return withDashes(flag.name) + (takesWord(flag) && flag.name.length > 1 ? "=" : "");
}

/** What fills COMPREPLY with a flag's values. */
function bashValues(flag: Argument): string | undefined {
  const values = valuesOf(flag);
  if (values === undefined) return takesWord(flag) ? ":" : undefined;
  const source = values === "file"
    ? 'compgen -f -- "$cur"'
    : values === "link"
    ? 'cd /sys/class/net && compgen -G "$cur*"'
    : `compgen -W "${values.join(" ")}" -- "$cur"`;
  return `${values === "file" ? "compopt -o filenames; " : ""}mapfile -t COMPREPLY < <(${source})`;
}

function zsh(): string {
  const commands = COMMAND_LIST.map(({ name, help }) => `    ${zshQuote(`${name}:${help}`)}`);
  const specs = (flags: readonly Argument[]) =>
    flags.map((flag) => `      ${zshFlag(flag)}`).join(" \\\n");
  const cases = COMMAND_LIST.map(({ name, flags, words = [] }) => {
    const all = [
      ...(words.length > 0 ? [`      ${zshQuote(`1:word:(${words.join(" ")})`)}`] : []),
      ...(flags.length > 0 ? [specs(flags)] : []),
    ];
    return all.length === 0
      ? `    ${name}) ;;`
      : `    ${name}) _arguments \\\n${all.join(" \\\n")} ;;`;
  });
  return `#compdef flanneld
# Completion of flanneld for zsh, as "flanneld completion zsh" prints it: _flanneld in a folder of
# $fpath.
_flanneld() {
  local -a commands=(
${commands.join("\n")}
  )
  if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  local first=$words[2]
  case $first in
    ${COMMAND_LIST.map(({ name }) => name).join("|")}) shift words; ((CURRENT--)) ;;
  esac
  case $first in
${cases.join("\n")}
    *) _arguments \\
${specs(FLAGS)} ;;
  esac
}
if [[ $funcstack[1] == _flanneld ]]; then _flanneld "$@"; else compdef _flanneld flanneld; fi
`;
}

/** A flag as _arguments takes it: \`--iface=[help]:NAME|IP:_net_interfaces\`. */
function zshFlag(flag: Argument): string {
  const { name, help, value } = flag;
  const text = `[${help.replaceAll(/[[\]\\:]/g, "\\$&")}]`;
  const repeats = LISTS.has(name) ? "*" : "";
  if (!takesWord(flag)) return zshQuote(`${repeats}${withDashes(name)}${text}`);
  const values = valuesOf(flag);
  const action = values === undefined
    ? " "
    : values === "file"
    ? "_files"
    : values === "link"
    ? "_net_interfaces"
    : `(${values.join(" ")})`;
  const equals = name.length > 1 ? "=" : "";
  return zshQuote(
    `${repeats}${withDashes(name)}${equals}${text}:${value!.replaceAll(":", "\\:")}:${action}`,
  );
}

function zshQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function fish(): string {
  const names = COMMAND_LIST.map(({ name }) => name).join(" ");
  const commands = COMMAND_LIST.map(({ name, help }) =>
    `complete -c flanneld -n __fish_use_subcommand -a ${name} -d ${fishQuote(help)}`
  );
  const flagsOf = (condition: string, flags: readonly Argument[]) =>
    flags.map((flag) => `complete -c flanneld -n ${fishQuote(condition)} ${fishFlag(flag)}`);
  return [
    '# Completion of flanneld for fish, as "flanneld completion fish" prints it.',
    "complete -c flanneld -f",
    ...commands,
    ...flagsOf(`not __fish_seen_subcommand_from ${names}`, FLAGS),
    ...COMMAND_LIST.flatMap(({ name, flags, words = [] }) => [
      ...(words.length === 0 ? [] : [
        `complete -c flanneld -n '__fish_seen_subcommand_from ${name}' -a '${words.join(" ")}'`,
      ]),
      ...flagsOf(`__fish_seen_subcommand_from ${name}`, flags),
    ]),
  ].join("\n") + "\n";
}

/** A flag as fish's `complete` takes it. */
function fishFlag(flag: Argument): string {
  const { name, help } = flag;
  const option = `${name.length === 1 ? "-s" : "-l"} ${name}`;
  const values = valuesOf(flag);
  const value = !takesWord(flag)
    ? ""
    : values === "file"
    ? " -r -F"
    : values === "link"
    ? " -x -a '(__fish_print_interfaces)'"
    : values === undefined
    ? " -x"
    : ` -x -a '${values.join(" ")}'`;
  return `${option}${value} -d ${fishQuote(help)}`;
}

function fishQuote(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
