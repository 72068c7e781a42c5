/**
 * Every command and exit code, as data: parsing, help, completion and manual page read these tables.
 *
 * @module
 */
import { DOCKER_FLAGS } from "./docker_opts.ts";
import { type Argument, FLAGS } from "./flags.ts";

/** A word that comes first, and asks for something else than to run the daemon. */
export interface Command {
  readonly name: string;
  /** What may follow, as the usage text has it. */
  readonly synopsis: string;
  readonly help: string;
  /** The flags that may follow. */
  readonly flags: readonly Argument[];
  /** The words of which one must follow. */
  readonly words?: readonly string[];
}

/** The shells that there is a completion for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** A shell's name. */
export type Shell = (typeof SHELLS)[number];

/** The table. */
export const COMMANDS = [
  {
    name: "cleanup",
    synopsis: "[--release] [flags]",
    help:
      "remove what flanneld with the same flags left on this host: links, routes, traffic rules " +
      "and the subnet file, and with --release also the lease; refused while flanneld runs",
    flags: [
      { name: "release", help: "also give up the lease, and the host's route entries in a cloud" },
      ...FLAGS,
    ],
  },
  {
    name: "docker-opts",
    synopsis: "[-f FILE] [-d FILE] [-i] [-c] [-k NAME] [-m] [--config-file=FILE]",
    help: "write dockerd's options for this host's subnet, as mk-docker-opts.sh does",
    flags: DOCKER_FLAGS,
  },
  {
    name: "cni",
    synopsis: "",
    help:
      "serve one call of a container runtime, as the CNI plug-in flannel does; the executable " +
      "does so under the name flannel, too",
    flags: [],
  },
  {
    name: "self-test",
    synopsis: "",
    help: "try each part of the program that is loaded on demand, and name those that are missing",
    flags: [],
  },
  {
    name: "completion",
    synopsis: SHELLS.join("|"),
    help: "print the completion for a shell",
    flags: [],
    words: SHELLS,
  },
  { name: "man", synopsis: "", help: "print the manual page, for man(1)", flags: [] },
  { name: "version", synopsis: "", help: "print the version", flags: [] },
  { name: "help", synopsis: "", help: "print all commands and flags", flags: [] },
] as const satisfies readonly Command[];

/** A command's name. */
export type CommandName = (typeof COMMANDS)[number]["name"];

/** Exit codes, and when. */
export const EXIT_CODES = [
  [0, "after SIGINT, SIGTERM, or a command that did what it was asked for"],
  [1, "manual action is required first; the last line says which"],
  [2, "wrong usage: the command line or a variable"],
] as const;
