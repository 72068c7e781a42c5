import assert from "node:assert/strict";
import { deadline, delay } from "../../src/util/time.ts";
import { cachedDirectory, latestCachedDirectory } from "./directory_cache.ts";

/** Gives `test` an empty directory and a signal. */
function cacheTest(
  name: string,
  test: (root: string, signal: AbortSignal) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const root = await Deno.makeTempDir({ prefix: "flanneld-cache-test-" });
    using limit = deadline(60_000, new AbortController());
    try {
      await test(root, limit.signal);
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  });
}

function directories(root: string): string[] {
  return [...Deno.readDirSync(root)].filter((entry) => entry.isDirectory)
    .map(({ name }) => name).sort();
}

cacheTest("cachedDirectory() builds once what many want at the same time", async (root, signal) => {
  let builds = 0;
  const build = async (directory: string) => {
    builds++;
    await delay(50, { signal });
    await Deno.writeTextFile(`${directory}/content`, "whole");
  };
  const got = await Promise.all(
    [1, 2, 3].map(() => cachedDirectory(root, "disk", "a", build, { signal })),
  );
  assert.deepEqual(got, Array(3).fill(`${root}/disk-a`));
  assert.equal(await Deno.readTextFile(`${root}/disk-a/content`), "whole");
  assert.equal(builds, 1);
});

cacheTest("cachedDirectory() leaves nothing of a build that fails", async (root, signal) => {
  const fault = new Error("no space");
  const failing = async (directory: string) => {
    await Deno.writeTextFile(`${directory}/content`, "half");
    throw fault;
  };
  await assert.rejects(cachedDirectory(root, "disk", "a", failing, { signal }), fault);
  assert.deepEqual(directories(root), []);
  await cachedDirectory(root, "disk", "a", async () => {}, { signal });
  assert.deepEqual(directories(root), ["disk-a"]);
});

cacheTest(
  "cachedDirectory() survives a process that is killed in its midst",
  async (root, signal) => {
    const module = new URL("./directory_cache.ts", import.meta.url);
    const script = `
    import { cachedDirectory } from ${JSON.stringify(module)};
    await cachedDirectory(${JSON.stringify(root)}, "disk", "b", async (directory) => {
      await Deno.writeTextFile(directory + "/content", "half");
      console.log("building");
      await new Promise(() => setInterval(() => {}, 1000));
    }, { signal: new AbortController().signal });`;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--cached-only", "--no-check", "--quiet", "-"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(script));
    await writer.close();
    const output = child.stdout.getReader();
    await output.read();
    assert.deepEqual(directories(root), ["disk-b.unfinished"]);

    let waits = 0;
    const build = async (directory: string) => {
      await Deno.writeTextFile(`${directory}/content`, "whole");
    };
    const onWaiting = () => {
      waits++;
      child.kill("SIGKILL");
    };
    await cachedDirectory(root, "disk", "a", build, { signal, onWaiting });
    await child.status;
    await output.cancel();
    assert.equal(waits, 1);
    assert.deepEqual(directories(root), ["disk-a"]);
    assert.equal(await Deno.readTextFile(`${root}/disk-a/content`), "whole");
  },
);

cacheTest("cachedDirectory() keeps those used last, of each kind", async (root, signal) => {
  const use = async (kind: string, key: string) => {
    await cachedDirectory(root, kind, key, async () => {}, { signal, keep: 2 });
    await delay(5, { signal }); // so that their times differ
  };
  await use("disk", "a");
  await use("disk", "b");
  await use("disk", "a");
  await use("image", "x");
  await use("disk", "c");
  assert.deepEqual(directories(root), ["disk-a", "disk-c", "image-x"]);
  assert.equal(await latestCachedDirectory(root, "disk", () => true), `${root}/disk-c`);
  assert.equal(await latestCachedDirectory(root, "disk", (key) => key < "c"), `${root}/disk-a`);
  assert.equal(await latestCachedDirectory(root, "none", () => true), undefined);
});

cacheTest("cachedDirectory() stops waiting for another process on abort", async (root, signal) => {
  const begun = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const build = () => {
    begun.resolve();
    return held.promise;
  };
  const first = cachedDirectory(root, "disk", "a", build, { signal });
  await begun.promise;
  const controller = new AbortController();
  const reason = new Error("enough");
  const second = cachedDirectory(root, "disk", "b", async () => {}, {
    signal: controller.signal,
    onWaiting: () => controller.abort(reason),
  });
  await assert.rejects(second, reason);
  held.resolve();
  await first;
  assert.deepEqual(directories(root), ["disk-a"]);
});
