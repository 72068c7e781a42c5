/**
 * The manual page flanneld(8), in roff's macros of man(7), from the tables of commands and flags.
 *
 * @module
 */
import { type Command, COMMANDS, EXIT_CODES } from "./commands.ts";
import {
  type Argument,
  environmentName,
  type Flag,
  FLAGS,
  FLAGS_WITH_VARIABLE,
  GROUPS,
  withDashes,
} from "./flags.ts";
import { describeDefault, wrap } from "./usage.ts";

const WIDTH = 78;

/** The page's source. It bears no date, so that the same program has the same page. */
export function manualPage(version: string): string {
  const commands: readonly Command[] = COMMANDS;
  return [
    String.raw`.\" As "flanneld man" prints it.`,
    `.TH FLANNELD 8 "" "flanneld ${version}" "System Administration"`,
    section("NAME"),
    String.raw`flanneld \- per\-host daemon of the flannel network`,
    section("SYNOPSIS"),
    ".B flanneld",
    text("[flags]"),
    ...commands.flatMap(({ name, synopsis }) => [
      ".br",
      `.B flanneld ${text(name)}`,
      ...(synopsis === "" ? [] : [text(synopsis)]),
    ]),
    section("DESCRIPTION"),
    text(
      "flanneld leases this host a subnet of one large network from etcd, or takes the node's from " +
        "Kubernetes, and a backend makes " +
        "every host's subnet reachable from every other host: by the VPC's route tables, by plain " +
        "routes, or through a tunnel. It writes the subnet to a file for the container runtime and " +
        "keeps routes, traffic rules and the lease as they should be until SIGINT or SIGTERM, " +
        "which leave all of them in place.",
    ),
    ".PP",
    text("The network config is JSON in etcd, below the prefix, in the key config:"),
    ...literal('{"Network":"10.24.0.0/16","Backend":{"Type":"vxlan"}}'),
    section("COMMANDS"),
    text("Without a command, flanneld runs the daemon in the foreground."),
    ...commands.flatMap(({ name, help }) => item(`.B ${text(name)}`, help)),
    section("OPTIONS"),
    text(
      "Flags may be written with one or two dashes, as --name=value or --name value; booleans take " +
        'a value only with "=". The cleanup command takes the same flags.',
    ),
    ...GROUPS.flatMap((group) => {
      const flags: readonly Flag[] = FLAGS.filter((flag) => flag.group === group);
      return [
        `.SS "${text(group)}"`,
        ...flags.flatMap((flag) => option({ ...flag, help: flag.help + describeDefault(flag) })),
      ];
    }),
    ...commands.flatMap(({ name, flags }) => {
      const own = flags.filter((flag) => !FLAGS.some(({ name }) => name === flag.name));
      return own.length === 0 ? [] : [`.SS "Of ${text(name)}"`, ...own.flatMap(option)];
    }),
    section("ENVIRONMENT"),
    text("Each flag has a variable, which counts where the flag is not given:"),
    text(
      FLAGS_WITH_VARIABLE.map(({ name }) => environmentName(name)).join(", ") + ".",
    ),
    ".PP",
    text(
      "Credentials of Alibaba Cloud may be given in ACCESS_KEY_ID and ACCESS_KEY_SECRET, or in " +
        "ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.",
    ),
    section("FILES"),
    ...item(".I /run/flannel/subnet.env", "The subnet, for the container runtime."),
    ...item(
      ".I /etc/flanneld.env",
      "Variables of the systemd unit; after it /etc/flannel/options.env and " +
        "/run/flannel/options.env.",
    ),
    section("EXIT STATUS"),
    ...EXIT_CODES.flatMap(([code, when]) => item(`.B ${code}`, when)),
    section("SEE ALSO"),
    ".BR etcd (1),",
    ".BR iptables (8),",
    ".BR nft (8),",
    ".BR systemd.service (5)",
  ].join("\n") + "\n";
}

function section(title: string): string {
  return `.SH "${title}"`;
}

function item(head: string, body: string): string[] {
  return [".TP", head, text(body)];
}

function option({ name, value, help }: Argument): string[] {
  const dashes = `\\fB${text(withDashes(name))}\\fR`;
  const separator = name.length === 1 ? " " : "=";
  return [
    ".TP",
    value === undefined ? dashes : `${dashes}${separator}\\fI${text(value)}\\fR`,
    text(help),
  ];
}

function literal(line: string): string[] {
  return [".PP", ".nf", ".RS", text(line), ".RE", ".fi"];
}

/** Text in which nothing is a command of roff, in lines as short as mandoc asks for. */
function text(words: string): string {
  const escaped = words.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("…", "...")
    .replaceAll('"', "\\(dq").replaceAll("'", "\\(aq");
  return wrap(escaped, WIDTH).map((line) => line.replace(/^\./, "\\&.")).join("\n");
}
