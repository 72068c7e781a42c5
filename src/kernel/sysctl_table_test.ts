import assert from "node:assert/strict";
import { diff } from "../reconcile/diff.ts";
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
    const table = createSysctlTable({
      root,
      names: () => [name, absent],
      onReadOnly: (each) => readOnly.push(each),
    });
    const desired = [{ name, value: "0" }, { name: absent, value: "0" }];
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
    names: () => [name],
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
