/**
 * How the services spell what they send: ids, texts, lists and pages, checked field by field.
 *
 * @module
 */
import * as v from "valibot";
import { Address, addressBits, Prefix } from "../../net/mod.ts";
import { oddReply } from "./errors.ts";

const ID_PATTERN = /^[A-Za-z][A-Za-z0-9-]{0,127}$/;

/** An id goes into further calls: an empty or malformed one must not. */
export const Id = v.pipe(v.string(), v.regex(ID_PATTERN, "is not an id"));
/** The service's own limits are 128 characters and less; descriptions are not read. */
export const Text = v.pipe(v.string(), v.maxLength(1_024, "is too long"));
export const OptionalText = v.nullish(Text, "");
/** Longer than any that was seen. */
export const Token = v.nullish(v.pipe(v.string(), v.maxLength(8_192, "is too long")), "");
export const Cidr = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const prefix = parseDestination(dataset.value);
    if (prefix !== undefined) return prefix;
    addIssue({ message: `"${dataset.value.slice(0, 60)}" is not in CIDR notation` });
    return NEVER;
  }),
);

/** No list brings more than a hundred or two at once. */
const MAX_ROWS = 1_000;

export function Rows<Item extends v.GenericSchema>(item: Item) {
  return v.pipe(v.array(v.unknown()), v.maxLength(MAX_ROWS, "is too long"), v.array(item));
}

/** The `{ "Name": [...] }` that every list is wrapped in; it must be there, even if empty. */
export function list<Name extends string, Item extends v.GenericSchema>(name: Name, item: Item) {
  return v.pipe(
    v.object({ [name]: Rows(item) } as Record<Name, ReturnType<typeof Rows<Item>>>),
    v.transform((wrapper) => (wrapper as Record<Name, v.InferOutput<Item>[]>)[name]),
  );
}

/** Like {@linkcode list}, empty where the service leaves it out. */
export function optionalList<Name extends string, Item extends v.GenericSchema>(
  name: Name,
  item: Item,
) {
  type Items = v.InferOutput<Item>[];
  const wrapper = v.object({ [name]: v.nullish(Rows(item), []) });
  const items = v.transform((value: { readonly [name: string]: Items }): Items =>
    value[name] ?? []
  );
  return v.nullish(v.pipe(wrapper as v.GenericSchema<unknown, { [name: string]: Items }>, items), {
    [name]: [],
  });
}

export const Count = v.pipe(v.number(), v.integer(), v.minValue(0));

export const AnyReply = v.object({});

/** A limit no real list reaches; it ends a service's endless paging. */
const MAX_PAGES = 200;
/** Filters may leave pages empty, and pages may shift; so many in a row bring something new. */
const MAX_PAGES_WITHOUT_NEWS = 10;

/** Sees that the pages of a list come to an end. */
export class PageWatch {
  readonly #action: string;
  readonly #tokens = new Set<string>();
  #pages = 0;
  #rows = 0;
  #withoutNews = 0;

  constructor(action: string) {
    this.#action = action;
  }

  /**
   * To be called when there is to be another page, with the number of different rows so far.
   *
   * @throws {AliApiError} If the service seems to page for ever.
   */
  next(rows: number, token?: string): void {
    this.#pages++;
    this.#withoutNews = rows > this.#rows ? 0 : this.#withoutNews + 1;
    this.#rows = rows;
    if (token !== undefined && this.#tokens.has(token)) this.#fail("a NextToken came twice");
    if (token !== undefined) this.#tokens.add(token);
    if (this.#withoutNews >= MAX_PAGES_WITHOUT_NEWS) {
      this.#fail(`the last ${this.#withoutNews} pages brought nothing new`);
    }
    if (this.#pages >= MAX_PAGES) this.#fail(`there are more than ${MAX_PAGES} pages`);
  }

  #fail(reason: string): never {
    const message = `the list has no end: ${reason}; a proxy or another service may have given it`;
    throw oddReply({ action: this.#action, message }, "EndlessList");
  }
}

/** A CIDR block, or a bare address as the host prefix that the service takes it for. */
export function parseDestination(text: string): Prefix | undefined {
  const address = Address.tryParse(text);
  return address === undefined
    ? Prefix.tryParse(text)
    : new Prefix(address, addressBits(address.family));
}
