import assert from "node:assert/strict";
import { encodePathRecord, type PathRecord } from "../../dataplane/path_record.ts";
import { Address } from "../../net/mod.ts";
import { delay } from "../../util/time.ts";
import { PathRecordFile } from "./former_path.ts";
import { recordLog } from "../../../tests/support/log.ts";

function recordOf(port: number): PathRecord {
  return {
    settings: { allowAnySource: false, natTraversal: false, families: [4] },
    mtuBytes: 1472,
    ipv4: Address.parse("10.5.7.0"),
    sockets: [{ address: Address.parse("192.0.2.7"), port }],
    forwarding: [],
  };
}

async function withFile(
  body: (context: { file: PathRecordFile; path: string; lines: string[] }) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-test-" });
  const { lines, log } = recordLog();
  const path = `${directory}/run/subnet.env.udp`;
  const file = new PathRecordFile(path, log, { writeAfterMs: 1, retryMs: 5 });
  try {
    await body({ file, path, lines });
  } finally {
    await file[Symbol.asyncDispose]();
    await Deno.remove(directory, { recursive: true });
  }
}

async function until(probe: () => boolean): Promise<void> {
  const signal = AbortSignal.timeout(10_000);
  while (!probe()) await delay(5, { signal });
}

Deno.test("a record that could not be written is written when that is possible", () =>
  withFile(async ({ file, path, lines }) => {
    const directory = path.replace(/\/[^/]*$/, "");
    await Deno.writeTextFile(directory, "in the way");
    file.note(() => recordOf(8285));
    await until(() => lines.length > 0);
    await delay(30, { signal: AbortSignal.timeout(10_000) });
    assert.equal(lines.length, 1, lines.join(""));
    assert.match(lines[0]!, /Cannot write .*subnet\.env\.udp, so a restart will cut traffic/);
    await Deno.remove(directory);
    await until(() => lines.length > 1);
    assert.match(lines[1]!, /Could write .*subnet\.env\.udp/);
    assert.equal(await Deno.readTextFile(path), encodePathRecord(recordOf(8285)));
  }));

Deno.test("of records noted at any time the last one is on the disk, whole", () =>
  withFile(async ({ file, path }) => {
    for (let port = 1; port <= 200; port++) {
      file.note(() => recordOf(port));
      if (port % 7 === 0) await delay(1, { signal: AbortSignal.timeout(10_000) });
      if (port % 50 === 0) await file[Symbol.asyncDispose]();
    }
    await file[Symbol.asyncDispose]();
    assert.equal(await Deno.readTextFile(path), encodePathRecord(recordOf(200)));
    assert.deepEqual([...Deno.readDirSync(path.replace(/\/[^/]*$/, ""))].length, 1);
  }));

Deno.test("a record that is removed does not come back, nor does what a killed run left", () =>
  withFile(async ({ file, path }) => {
    file.note(() => recordOf(1));
    await file[Symbol.asyncDispose]();
    await Deno.writeTextFile(path.replace(/([^/]*)$/, ".$1.flanneld"), '{"version":1,');
    file.note(() => recordOf(2));
    await delay(3, { signal: AbortSignal.timeout(10_000) });
    await file.remove();
    await delay(20, { signal: AbortSignal.timeout(10_000) });
    assert.deepEqual([...Deno.readDirSync(path.replace(/\/[^/]*$/, ""))], []);
  }));
