import assert from "node:assert/strict";
import { runProgram } from "../util/process.ts";

/** Where this machine has libnl itself; what is carried is a copy of it. */
const DIRECTORY = `/usr/lib/${Deno.build.arch}-linux-gnu`;
const NAMES = ["libnl-3.so.200", "libnl-route-3.so.200"];

const present = NAMES.every((name) => {
  try {
    return Deno.statSync(`${DIRECTORY}/${name}`).isFile;
  } catch {
    return false;
  }
});

Deno.test({
  name: "loadLibraries() needs no directory" + (present ? "" : " [skipped: needs Debian's libnl]"),
  ignore: !present,
  async fn() {
    // In a process of its own: what is loaded stays.
    const script = `
      import { loadLibraries } from ${
      JSON.stringify(import.meta.resolve("./carried_libraries.ts"))
    };
      const names = ${JSON.stringify(NAMES)};
      loadLibraries(names.map((name) => ({
        name,
        bytes: Deno.readFileSync("${DIRECTORY}/" + name),
      })));
      // Found by its soname, though no file of that name was opened.
      Deno.dlopen("libnl-route-3.so.200", {
        rtnl_route_alloc: { parameters: [], result: "pointer" },
      });
      console.log(Deno.readTextFileSync("/proc/self/maps"));
    `;
    const { code, stdout, stderr } = await runProgram(Deno.execPath(), [
      ...["eval", "--cached-only", "--ext=ts", script],
    ], { signal: new AbortController().signal, env: { TMPDIR: "/nowhere" } });
    assert.equal(code, 0, stderr);
    for (const name of NAMES) assert.ok(stdout.includes(`/memfd:${name} (deleted)`), stdout);
    assert.ok(!stdout.includes(`${DIRECTORY}/libnl`), stdout);
  },
});
