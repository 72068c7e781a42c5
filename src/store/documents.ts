/**
 * Small documents that the hosts of a cluster share. The store can compare and set each of them;
 * nothing spans two documents.
 *
 * @module
 */
import type { CallOptions } from "./errors.ts";

/** A document as the store holds it. Nothing in it is trusted yet. */
export interface Document {
  readonly key: string;
  readonly value: string;
  /** Opaque; another one after each write. */
  readonly version: string;
}

/** What {@linkcode Documents.follow} yields. */
export type DocumentUpdate =
  | {
    readonly type: "current";
    /** `undefined` while there is none. */
    readonly document: Document | undefined;
  }
  /** Nothing newer is known until the next `current`; said once per outage. */
  | { readonly type: "disconnected"; readonly error: Error };

/** Options of a write. */
export interface WriteOptions extends CallOptions {
  /** The document goes by itself this long after the write. @default {never} */
  readonly lifetimeSeconds?: number | undefined;
}

/**
 * The documents of one name. Calls fail with `StoreError`; reads are linearizable. Writes are
 * compare-and-set: they return `undefined` (`false`), and write nothing, if the document is not
 * what the caller knows. A write of unknown outcome fails as `unavailable`: the caller reads again.
 */
export interface Documents {
  list(options: CallOptions): Promise<readonly Document[]>;
  get(key: string, options: CallOptions): Promise<Document | undefined>;
  create(key: string, value: string, options: WriteOptions): Promise<Document | undefined>;
  /** If it still has this version. */
  update(
    document: Pick<Document, "key" | "version">,
    value: string,
    options: WriteOptions,
  ): Promise<Document | undefined>;
  /** If it still has this version. */
  remove(document: Pick<Document, "key" | "version">, options: CallOptions): Promise<boolean>;
  /**
   * Follows one document: what it is now, then each change. Never throws for trouble of the store;
   * ends on abort only.
   */
  follow(key: string, options: CallOptions): AsyncIterable<DocumentUpdate>;
  /** The command by which an operator writes a document. */
  writeCommand(key: string, value: string): string;
}
