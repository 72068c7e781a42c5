/**
 * The table of backends: each one is a pure {@linkcode Backend} in a file of its own, and adding
 * one is that file and a line here.
 *
 * @module
 */
import { aliVpc } from "./ali_vpc.ts";
import { alloc } from "./alloc.ts";

export { aliVpc, alloc };
export type { AliVpcConfig, AliVpcFacts } from "./ali_vpc.ts";
export * from "./backend.ts";

/** Every backend by its `Backend.Type` in lower case. */
export const backends = {
  "alloc": alloc,
  "ali-vpc": aliVpc,
} as const;
