/** The documents of one name as keys of one space; a version is the key's revision. @module */
import type { Document, Documents, DocumentUpdate, WriteOptions } from "../documents.ts";
import type { CallOptions } from "../errors.ts";
import type { Entry, KeySpace } from "./key_space.ts";

/** Documents in a {@linkcode KeySpace}. */
export class SpaceDocuments implements Documents {
  readonly #space: KeySpace;
  readonly writeCommand: Documents["writeCommand"];

  constructor(space: KeySpace, writeCommand: Documents["writeCommand"]) {
    this.#space = space;
    this.writeCommand = writeCommand;
  }

  async list(options: CallOptions): Promise<readonly Document[]> {
    return (await this.#space.list(options)).map(toDocument);
  }

  async get(key: string, options: CallOptions): Promise<Document | undefined> {
    return toOptionalDocument(await this.#space.get(key, options));
  }

  async create(key: string, value: string, options: WriteOptions): Promise<Document | undefined> {
    const { lifetimeSeconds } = options;
    return toOptionalDocument(await this.#space.create(key, value, lifetimeSeconds, options));
  }

  async update(
    { key, version }: Pick<Document, "key" | "version">,
    value: string,
    options: WriteOptions,
  ): Promise<Document | undefined> {
    const { lifetimeSeconds } = options;
    return toOptionalDocument(
      await this.#space.update(key, value, version, lifetimeSeconds, options),
    );
  }

  remove(
    { key, version }: Pick<Document, "key" | "version">,
    options: CallOptions,
  ): Promise<boolean> {
    return this.#space.remove(key, version, options);
  }

  async *follow(key: string, options: CallOptions): AsyncGenerator<DocumentUpdate> {
    let known: Document | undefined;
    let isCurrent = false;
    for await (const update of this.#space.watch(options)) {
      if (update.type === "disconnected") {
        yield update;
        isCurrent = false;
        continue;
      }
      const entry = update.type === "snapshot"
        ? update.entries.find((each) => each.key === key)
        : update.events.reduce<Entry | undefined | typeof UNCHANGED>((last, event) => {
          if (event.type === "put") return event.entry.key === key ? event.entry : last;
          return event.key === key ? undefined : last;
        }, UNCHANGED);
      const document = entry === UNCHANGED ? known : toOptionalDocument(entry);
      if (isCurrent && document?.version === known?.version) continue;
      known = document;
      isCurrent = true;
      yield { type: "current", document };
    }
  }
}

/** No event was about the key. */
const UNCHANGED = Symbol("unchanged");

function toDocument({ key, value, revision }: Entry): Document {
  return { key, value, version: revision };
}

function toOptionalDocument(entry: Entry | undefined): Document | undefined {
  return entry && toDocument(entry);
}
