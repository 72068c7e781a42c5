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
 * @param needed Tables whose content matters.
 * @throws {Error} If the text is cut short, is no such output, or says that a needed table holds
 * what iptables cannot print (rules of `nft`), because then rules would seem missing.
 */
export function parseDump(text: string, needed: readonly string[]): Dump {
  const tables = new Map<string, Map<string, DumpedChain>>();
  let table: Map<string, DumpedChain> | undefined;
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) {
      const strange = /^# Table `(.*)' is incompatible/.exec(line)?.[1];
      if (strange !== undefined && needed.includes(strange)) {
        throw new Error(
          `Cannot read table ${strange} of iptables: it holds rules that only nft can show; ` +
            `see "nft list ruleset", and move them to a table of their own`,
        );
      }
    } else if (line.startsWith("*")) {
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
      if (!chain) throw new Error(`Cannot read rules: chain ${name} was not announced`);
      chain.rules.push(end < 0 ? "" : line.slice(end + 1));
    } else {
      throw new Error(`Cannot read rules: unexpected line "${line}"`);
    }
  }
  if (table) throw cutShort("end of output");
  return tables;
}

function cutShort(where: string): Error {
  return new Error(`Cannot read rules: the listing is cut short at "${where}"`);
}
