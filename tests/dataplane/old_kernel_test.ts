/** The daemon with backend `udp` where the kernel has none of the offloads. */
import assert from "node:assert/strict";
import { C_TOOLS } from "../prerequisites.ts";
import { daemonCommand, daemonProgram, labTest, openLab } from "../lab/mod.ts";
import { run } from "../support/run.ts";
import { dataPlaneOf, HEALTH_FLAGS } from "./data_plane.ts";
import { transferFile } from "./transfer.ts";

const NOTICES = [
  /TUN devices have no offloads; carrying packets one by one/,
  /cannot join datagrams \(UDP_GRO, Linux 5\.0\)/,
  /cannot split datagrams \(UDP_SEGMENT, Linux 4\.18\)/,
];

labTest(
  "udp: without the kernel's offloads packets pass one by one, and a line of each says so",
  async ({ signal }) => {
    await using lab = await openLab({ signal, topology: "routed", hosts: 2 });
    await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "udp" } }, { signal });
    const [modern, old] = lab.hosts;
    const launcher = `${lab.directory}/old_kernel`;
    const source = new URL("./old_kernel.c", import.meta.url).pathname;
    await run("gcc", ["-O1", "-Wall", "-o", launcher, source], { signal });
    const { program, args } = daemonCommand(daemonProgram(), []);
    const path = `${lab.directory}/flanneld-old-kernel`;
    const words = [launcher, program, ...args].map((word) => `'${word}'`).join(" ");
    await Deno.writeTextFile(path, `#!/bin/sh\nexec ${words} "$@"\n`, { mode: 0o755 });

    await (await modern!.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
    const daemon = await old!.startDaemon({
      flags: HEALTH_FLAGS,
      program: { kind: "binary", path },
    });
    await daemon.ready({ signal });
    await lab.ensurePods(1, { signal });
    const [from, to] = [modern!.pods[0]!, old!.pods[0]!];
    const options = { signal, directory: lab.directory, megabytes: 8 };
    await transferFile(from, to, options);
    await transferFile(to, from, options);

    const counters = await dataPlaneOf(old!, { signal });
    assert.ok(counters.sentPackets > 5_000 && counters.receivedPackets > 5_000);
    assert.equal(counters.sentDatagramRuns + counters.receivedDatagramRuns, 0);
    assert.equal(counters.tunWrites, counters.receivedPackets, "each is written by itself");
    assert.equal(counters.dropMalformed, 0);
    for (const notice of NOTICES) {
      const count = (host: typeof modern) =>
        host!.daemon.process.lines.filter((line) => notice.test(line)).length;
      assert.deepEqual([count(old), count(modern)], [1, 0], `${notice}`);
    }
  },
  { needs: C_TOOLS },
);
