/** The documents of one name as keys of one space. @module */
import type { Documents } from "../documents.ts";
import { followKey } from "./follow.ts";
import type { KeySpace } from "./key_space.ts";

export function spaceDocuments(
  space: KeySpace,
  writeCommand: Documents["writeCommand"],
): Documents {
  return {
    list: (options) => space.list(options),
    get: (key, options) => space.get(key, options),
    create: (key, value, options) => space.create(key, value, options),
    update: (seen, value, options) => space.update(seen, value, options),
    remove: (seen, options) => space.remove(seen, options),
    follow: (key, options) => followKey(key, space.watch(options)),
    writeCommand,
  };
}
