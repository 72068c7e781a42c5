/**
 * What systemd makes of the unit and of Docker's drop-in.
 *
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { runProgram } from "../src/util/process.ts";
import { skippable } from "./prerequisites.ts";
import { root } from "./support/documents.ts";

const ANALYZE = "/usr/bin/systemd-analyze";

function findObstacle(): string | undefined {
  try {
    Deno.statSync(ANALYZE);
    return undefined;
  } catch {
    return `needs ${ANALYZE}`;
  }
}

const obstacle = findObstacle();

Deno.test({
  name: skippable("no ordering cycle, even where etcd starts after Docker", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const folder = await Deno.makeTempDir();
    const put = (name: string, text: string) => Deno.writeTextFile(join(folder, name), text);
    const shipped = async (name: string) =>
      (await Deno.readTextFile(join(root, "dist", name))).replaceAll(
        "/usr/local/bin/flanneld",
        "/bin/true", // which is there
      );
    const verify = async (): Promise<string> => {
      const { stdout, stderr } = await runProgram(
        ANALYZE,
        ["verify", "--man=no", "docker.service", "etcd.service", "flanneld.service"],
        {
          signal: AbortSignal.timeout(60_000),
          timeoutMs: 60_000,
          env: { SYSTEMD_UNIT_PATH: `${folder}:` },
        },
      );
      return stdout + stderr;
    };
    await put("flanneld.service", await shipped("flanneld.service"));
    await put("docker.service", "[Unit]\nWants=etcd.service\n[Service]\nExecStart=/bin/true\n");
    await put("etcd.service", "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/bin/true\n");
    await Deno.mkdir(join(folder, "docker.service.d"));
    await put("docker.service.d/flannel.conf", await shipped("docker-flannel.conf"));
    const said = await verify();
    assert.doesNotMatch(said, /cycle/, said);
    assert.doesNotMatch(said, new RegExp(`${folder}|Unknown key|not executable`), said);

    // It would tell.
    await put("docker.service.d/etcd.conf", "[Unit]\nAfter=etcd.service\n");
    assert.match(await verify(), /ordering cycle/);
    await Deno.remove(folder, { recursive: true });
  },
});
