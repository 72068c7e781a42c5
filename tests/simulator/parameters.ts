import { ApiError } from "./api_error.ts";

/** Parameters of one RPC call: names and values as sent, lists flattened as `Name.1.Field`. */
export class Parameters {
  readonly #values: ReadonlyMap<string, string>;

  constructor(values: ReadonlyMap<string, string>) {
    this.#values = values;
  }

  get names(): string[] {
    return [...this.#values.keys()];
  }

  /** The value, or `undefined` where the parameter is absent or empty. */
  optional(name: string): string | undefined {
    return this.#values.get(name) || undefined;
  }

  /** @throws {ApiError} `Missing<Name>` */
  required(name: string): string {
    const value = this.optional(name);
    if (value === undefined) {
      throw new ApiError(400, `Missing${name}`, `${name} is mandatory for this action.`);
    }
    return value;
  }

  boolean(name: string): boolean | undefined {
    const value = this.optional(name);
    if (value === undefined) return undefined;
    if (!/^(?:true|false)$/i.test(value)) throw invalidParameter(name);
    return value.toLowerCase() === "true";
  }

  /** An integer of at least `min`. */
  integer(name: string, options: { min: number; default: number }): number {
    const value = this.optional(name);
    if (value === undefined) return options.default;
    const number = Number(value);
    if (!/^\d+$/.test(value) || number < options.min) throw invalidParameter(name);
    return number;
  }

  /** `Name.1`, `Name.2`, … until the first gap. */
  texts(name: string): string[] {
    const found: string[] = [];
    for (let i = 1; this.#values.has(`${name}.${i}`); i++) {
      found.push(this.#values.get(`${name}.${i}`)!);
    }
    return found;
  }

  /** `Name.1.Field`, `Name.2.Field`, … until the first index without any field. */
  records(name: string): Parameters[] {
    const found: Parameters[] = [];
    for (let i = 1;; i++) {
      const prefix = `${name}.${i}.`;
      const fields = [...this.#values].filter(([key]) => key.startsWith(prefix));
      if (fields.length === 0) return found;
      found.push(
        new Parameters(new Map(fields.map(([k, value]) => [k.slice(prefix.length), value]))),
      );
    }
  }
}

function invalidParameter(name: string): ApiError {
  return new ApiError(400, "InvalidParameter", `The specified parameter ${name} is not valid.`);
}
