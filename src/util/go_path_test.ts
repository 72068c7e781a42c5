import assert from "node:assert/strict";
import { joinPath } from "./go_path.ts";

Deno.test("joinPath() cleans as Go's path.Join does", () => {
  // The table is that of Go's path_test.go, where it applies.
  const cases: readonly (readonly [readonly string[], string])[] = [
    [[], ""],
    [["a"], "a"],
    [["a", "b"], "a/b"],
    [["a", ""], "a"],
    [["", "b"], "b"],
    [["/", "a"], "/a"],
    [["/", ""], "/"],
    [["a/", "b"], "a/b"],
    [["", ""], ""],
    [["/coreos.com/network/", "config"], "/coreos.com/network/config"],
    [["//coreos.com//./network", "config"], "/coreos.com/network/config"],
    [["/a/b/../c", "d"], "/a/c/d"],
    [["/../a", "b"], "/a/b"],
    [["../a", "b"], "../a/b"],
    [["a/../..", "b"], "../b"],
    [["a/.."], "."],
  ];
  for (const [parts, joined] of cases) assert.equal(joinPath(...parts), joined, parts.join(" + "));
});
