/**
 * A backend of the tests that shows what one is made of: a pure part, facts, a Table, a loop and a
 * status. It keeps a file for each peer's subnet in a folder. Nothing in `src` knows of it.
 *
 * @module
 */
import { join } from "node:path";
import type { Backend } from "../../src/backends/mod.ts";
import { FieldReader } from "../../src/config/fields.ts";
import type { Change, FailedChange, Table } from "../../src/reconcile/table.ts";
import { backendEntry } from "../../src/runtime/entry.ts";
import type { BackendEntry, BackendRuntime } from "../../src/runtime/runtime.ts";
import type { ForwardingSpec } from "../../src/state/mod.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { Cell } from "../../src/util/cell.ts";
import { delay } from "../../src/util/time.ts";

/** Its part of the network config. */
interface ToyConfig {
  readonly folder: string;
}

/** What its plan follows from besides: how many times its loop has gone round. */
interface ToyFacts {
  readonly rounds: number;
}

/** The loop stops counting there, so that the daemon comes to rest. */
const ROUNDS = 3;
const ROUND_MS = 100;
const PORT = 7;

/** The pure part. */
const toy: Backend<ToyConfig, ToyFacts> = {
  type: "toy",
  families: [4],
  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    const folder = fields.string("Folder") ?? "/nowhere";
    return { config: { folder }, warnings: fields.finish() };
  },
  changesKernel: () => false,
  overheadBytes: () => 100,
  announce: (_config, { publicIp }) => ({ backendType: "toy", ...(publicIp ? { publicIp } : {}) }),
  planHost: () => ({}),
  planPeer({ facts }, { subnet: { ipv4 }, attributes: { publicIp } }) {
    if (!ipv4 || !publicIp) return {};
    return { forwarding: [{ destination: ipv4, address: publicIp, port: PORT + facts.rounds }] };
  },
};

/** A file for each destination, which holds where it is reached. */
function folderTable(folder: string): Table<ForwardingSpec> {
  const path = ({ destination }: ForwardingSpec) =>
    join(folder, destination.toString().replace("/", "-"));
  return {
    kind: {
      id: "forwarding",
      name: "toy",
      key: ({ destination }) => destination.toString(),
      equal: (a, b) => a.address.equals(b.address) && a.port === b.port,
      owns: () => true,
      format: ({ destination, address }) => `${destination} at ${address}`,
    },
    async list() {
      const found: ForwardingSpec[] = [];
      for await (const { name } of Deno.readDir(folder)) {
        const [address, port] = (await Deno.readTextFile(join(folder, name))).split(" ");
        found.push({
          destination: Prefix.parse(name.replace("-", "/")),
          address: Address.parse(address!),
          port: Number(port),
        });
      }
      return found;
    },
    async apply(changes: readonly Change<ForwardingSpec>[]) {
      const failed: FailedChange<ForwardingSpec>[] = [];
      for (const change of changes) {
        if (change.op === "remove") await Deno.remove(path(change.actual));
        else {
          const { address, port } = change.desired;
          await Deno.writeTextFile(path(change.desired), `${address} ${port}`);
        }
      }
      return failed;
    },
  };
}

/** The part that needs the world. */
async function openToy(folder: string): Promise<BackendRuntime<ToyFacts>> {
  await Deno.mkdir(folder, { recursive: true });
  const facts = new Cell<ToyFacts>({ rounds: 0 });
  const changes = new Cell(0);
  return {
    facts,
    remote: {
      resyncMs: 1_000,
      stages: (desired) => [{
        table: folderTable(folder),
        desired: () => desired()?.forwarding,
      }],
      changes,
      waitingFor: () =>
        facts.value.rounds < ROUNDS
          ? { code: "cloud-waiting", object: "toy", message: "the loop" }
          : undefined,
      leasesChanged: () => void changes.set(changes.value + 1),
      disown() {},
    },
    async run(_cluster, { signal }) {
      while (true) {
        await delay(ROUND_MS, { signal });
        const { rounds } = facts.value;
        if (rounds < ROUNDS) facts.set({ rounds: rounds + 1 });
      }
    },
    status: () => ({ dataPlane: () => ({ rounds: facts.value.rounds }) }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** All that is to be added to the table of backends. */
export const toyEntry: BackendEntry = backendEntry(toy, {
  open: (_context, { folder }) => openToy(folder),
});
