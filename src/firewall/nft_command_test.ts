import assert from "node:assert/strict";
import { listNftTable } from "./nft_command.ts";

/** Runs `action` with an `nft` that fails to list tables one by one, and lists `tables` together. */
async function withNft<T>(tables: readonly object[], action: () => Promise<T>): Promise<T> {
  const directory = await Deno.makeTempDir({ prefix: "nft-" });
  const path = Deno.env.get("PATH")!;
  const listing = JSON.stringify({ nftables: [{ metainfo: {} }, ...tables] });
  await Deno.writeTextFile(
    `${directory}/nft`,
    `#!/bin/sh\n[ "$*" = "-j list tables" ] && echo '${listing}' && exit 0\n` +
      "echo 'Fehler: Datei oder Verzeichnis nicht gefunden' >&2; exit 1\n",
    { mode: 0o755 },
  );
  Deno.env.set("PATH", `${directory}:${path}`);
  try {
    return await action();
  } finally {
    Deno.env.set("PATH", path);
    await Deno.remove(directory, { recursive: true });
  }
}

const NAME = { family: "ip", table: "flannel-ipv4" };
const { signal } = new AbortController();

Deno.test("listNftTable() knows a table that is gone by nft's listing, whatever nft says", async () => {
  const others = [
    { table: { family: "ip6", name: NAME.table } },
    { table: { family: NAME.family, name: "filter" } },
  ];
  assert.equal(await withNft(others, () => listNftTable(NAME, { signal })), undefined);
});

Deno.test("listNftTable() fails where a table is there and cannot be listed", async () => {
  const own = [{ table: { family: NAME.family, name: NAME.table } }];
  await assert.rejects(withNft(own, () => listNftTable(NAME, { signal })), /nicht gefunden/);
});
