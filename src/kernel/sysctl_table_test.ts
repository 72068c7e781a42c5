import assert from "node:assert/strict";
import { diff } from "../../tests/support/diff.ts";
import type { SysctlSpec } from "../state/mod.ts";
import { createSysctlTable } from "./sysctl_table.ts";

const { signal } = new AbortController();

Deno.test("sysctl Table writes what differs, whatever dots are in the name", async () => {
  const root = await Deno.makeTempDir({ prefix: "flanneld-sysctl-" });
  try {
    const name = "net/ipv6/conf/flannel-v6.1/accept_ra";
    await Deno.mkdir(`${root}/net/ipv6/conf/flannel-v6.1`, { recursive: true });
    await Deno.writeTextFile(`${root}/${name}`, "2\n");
    const readOnly: string[] = [];
    const absent = "net/ipv6/conf/flannel-v6.2/accept_ra";
    const desired = [{ name, value: "0" }, { name: absent, value: "0" }];
    const table = createSysctlTable({
      root,
      wanted: () => desired,
      onReadOnly: (each) => readOnly.push(each),
    });
    const round = async () => {
      const { writes, removals } = diff(table.kind, desired, await table.list({ signal }));
      assert.deepEqual(await table.apply([...writes, ...removals], { signal }), []);
      return writes.length + removals.length;
    };
    assert.equal(await round(), 1);
    assert.match(await Deno.readTextFile(`${root}/${name}`), /^0/);
    assert.equal(await round(), 0, "what the kernel does not have is none of ours to set");
    assert.deepEqual(diff(table.kind, [], await table.list({ signal })).writes, []);
    assert.deepEqual(readOnly, []);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("sysctl Table says once that a parameter cannot be written, and lets it be", async () => {
  // Readable by all, and by the kernel's word writable by nobody.
  const name = "kernel/ostype";
  const readOnly: string[] = [];
  const table = createSysctlTable({
    wanted: () => [{ name, value: "Plan 9" }],
    onReadOnly: (each, reason) => readOnly.push(`${each}: ${reason}`),
  });
  for (let i = 0; i < 3; i++) {
    const { writes } = diff(table.kind, [{ name, value: "Plan 9" }], await table.list({ signal }));
    assert.equal(writes.length, i === 0 ? 1 : 0);
    assert.deepEqual(await table.apply(writes, { signal }), []);
  }
  assert.equal(readOnly.length, 1);
  assert.match(readOnly[0]!, /^kernel\/ostype: System call open failed: permission denied/);
});

Deno.test("sysctl Table names the parameter of which a read fails", async () => {
  // It opens, and its first byte cannot be read.
  const table = createSysctlTable({
    root: "/proc/self",
    wanted: () => [{ name: "mem", value: "0" }],
    onReadOnly: assert.fail,
  });
  await assert.rejects(
    async () => await table.list({ signal }),
    (error) => error instanceof Error && error.message === "Cannot read /proc/self/mem",
  );
});

Deno.test("sysctl Table lets values be that do as well, and sees what counts instead", async () => {
  const root = await Deno.makeTempDir({ prefix: "flanneld-sysctl-" });
  try {
    const [name, all] = ["net/ipv4/conf/eth0/rp_filter", "net/ipv4/conf/all/rp_filter"];
    const spec: SysctlSpec = { name, value: "2", accepts: ["0"], raisedBy: all };
    const table = createSysctlTable({ root, wanted: () => [spec], onReadOnly: assert.fail });
    await Deno.mkdir(`${root}/net/ipv4/conf/eth0`, { recursive: true });
    await Deno.mkdir(`${root}/net/ipv4/conf/all`, { recursive: true });
    // Of both the kernel takes the higher: 0 is none, 1 strict, 2 loose.
    for (
      const [own, others, left] of [
        ["0", "0", "0"],
        ["0", "1", "2"],
        ["0", "2", "0"],
        ["1", "0", "2"],
        ["1", "1", "2"],
        ["1", "2", "1"],
        ["2", "0", "2"],
        ["2", "1", "2"],
      ] as const
    ) {
      await Deno.writeTextFile(`${root}/${name}`, `${own}\n`);
      await Deno.writeTextFile(`${root}/${all}`, `${others}\n`);
      const { writes, removals } = diff(table.kind, [spec], await table.list({ signal }));
      assert.deepEqual(removals, []);
      assert.deepEqual(await table.apply(writes, { signal }), []);
      const text = await Deno.readTextFile(`${root}/${name}`);
      assert.equal(text.trim(), left, `with ${own} and ${others} of all`);
      assert.equal(writes.length, own === left ? 0 : 1);
      assert.deepEqual(diff(table.kind, [spec], await table.list({ signal })).writes, []);
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
