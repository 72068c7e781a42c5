/** Reads what `iptables-save` and `iptables -S` print. @module */
/** A chain as `iptables-save` prints it. */
export interface DumpedChain {
  /** `ACCEPT` or `DROP` of a built-in chain, `-` of any other. */
  readonly policy: string;
  /** The rules in order, without `-A <chain>`. */
  readonly rules: string[];
}

/** Tables by name, their chains by name. A table that the kernel does not have is not there. */
export type Dump = ReadonlyMap<string, ReadonlyMap<string, DumpedChain>>;

/**
 * Reads the output of `iptables-save`, of either variant. Rules are kept as text, since most
 * belong to others.
 *
 * @throws {Error} If the text is cut short or is anything else, since rules would seem
 * missing. What {@linkcode findUnprintedTables} names is missing.
 */
export function parseDump(text: string): Dump {
  const tables = new Map<string, Map<string, DumpedChain>>();
  let table: Map<string, DumpedChain> | undefined;
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("*")) {
      if (table) throw cutShort(line);
      table = new Map();
      tables.set(line.slice(1), table);
    } else if (!table) {
      throw new Error(`Cannot read rules: unexpected line "${line}"`);
    } else if (line === "COMMIT") {
      table = undefined;
    } else if (line.startsWith(":")) {
      const [name, policy] = line.slice(1).split(" ");
      table.set(name!, { policy: policy ?? "-", rules: [] });
    } else if (line.startsWith("-A ")) {
      const end = line.indexOf(" ", 3);
      const name = end < 0 ? line.slice(3) : line.slice(3, end);
      const chain = table.get(name);
      if (!chain) throw new Error(`Cannot read rules: chain ${name} was not declared`);
      chain.rules.push(end < 0 ? "" : line.slice(end + 1));
    } else {
      throw new Error(`Cannot read rules: unexpected line "${line}"`);
    }
  }
  if (table) throw cutShort("end of output");
  return tables;
}

/**
 * The tables that `iptables-nft-save` leaves out, since nft has put something into them that it
 * cannot print. (It leaves out only whole base chains of nft, which is harmless.)
 */
export function findUnprintedTables(text: string): string[] {
  return [...text.matchAll(/^# Table `(.*)' is incompatible/gm)].map(([, table]) => table!);
}

/** Reads the output of `iptables -S <chain>`: its policy, if it is built in, and its rules. */
export function parseChainListing(text: string): DumpedChain {
  const lines = text.split("\n");
  const policy = lines.map((line) => /^-P \S+ (\S+)/.exec(line)?.[1]).find(Boolean) ?? "-";
  const rules = lines.flatMap((line) => /^-A \S+ ?(.*)$/.exec(line)?.[1] ?? []);
  return { policy, rules };
}

function cutShort(where: string): Error {
  return new Error(`Cannot read rules: the listing is cut short at "${where}"`);
}
