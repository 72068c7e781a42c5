import assert from "node:assert/strict";
import { missingTools, skippable, type Tool } from "../../tests/prerequisites.ts";
import { COMMANDS } from "./commands.ts";
import { environmentName, type Flag, FLAGS, withDashes } from "./flags.ts";
import { manualPage } from "./manual_page.ts";

/** What each checker prints of the page: what it finds wrong, or the page. */
const CHECKS: readonly { readonly tool: Tool; readonly args: readonly string[] }[] = [
  { tool: "groff", args: ["-ww", "-man", "-Tutf8", "-P-cbou"] },
  { tool: "man", args: ["--warnings", "--local-file", "-"] },
  { tool: "mandoc", args: ["-T", "lint"] },
];

for (const { tool, args } of CHECKS) {
  const obstacle = missingTools([tool]);
  Deno.test({
    name: skippable(`${tool} finds nothing wrong with the manual page`, obstacle),
    ignore: obstacle !== undefined,
    async fn() {
      const child = new Deno.Command(tool, {
        args: [...args],
        env: { LC_ALL: "C.UTF-8", MANWIDTH: "100", MANPAGER: "cat" },
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(manualPage("1.2.3")));
      await writer.close();
      const { stdout, stderr } = await child.output();
      const [page, faults] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      assert.equal(faults, "");
      // A date would make another page of the same program.
      if (tool === "mandoc") assert.match(page!, /^[^\n]*missing date, using "": TH\n$/);
      else assert.match(page!, /--etcd-prefix=PATH/);
    },
  });
}

Deno.test("manualPage() has every command, and every flag with its variable", () => {
  const plain = manualPage("1.2.3").replaceAll("\\-", "-").replaceAll(/\\f./g, "");
  for (const { name } of COMMANDS) assert.ok(plain.includes(`.B flanneld ${name}\n`), name);
  for (const { name, ends } of FLAGS as readonly Flag[]) {
    assert.match(plain, new RegExp(`(?<![\\w-])${withDashes(name)}(?![\\w-])`), name);
    const isVariable = !ends;
    const variable = new RegExp(`\\b${environmentName(name)}\\b`);
    assert.equal(variable.test(plain), isVariable, name);
  }
});
