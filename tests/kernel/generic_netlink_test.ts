/** Generic netlink on the kernel itself: its controller is a family that is always there. */
import assert from "node:assert/strict";
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { toolTest } from "../prerequisites.ts";
import { GENL_ID_CTRL, getFamily, listFamilies, openGenericNetlink } from "./generic_netlink.ts";

const { signal } = new AbortController();

toolTest("getFamily() finds a family by its name", ["libnl"], async () => {
  await using transport = openGenericNetlink();
  const { id, name, version } = await getFamily(transport, "nlctrl", { signal });
  assert.deepEqual([id, name], [GENL_ID_CTRL, "nlctrl"]);
  assert.ok(version > 0);
});

toolTest("getFamily() names a family that the kernel does not have", ["libnl"], async () => {
  await using transport = openGenericNetlink();
  await assert.rejects(getFamily(transport, "no-such-family", { signal }), (error) => {
    assert.ok(error instanceof NetlinkError);
    assert.match(error.message, /^Cannot find generic netlink family no-such-family: no such file/);
    return error.code === "ENOENT";
  });
});

toolTest("listFamilies() lists what getFamily() finds", ["libnl"], async () => {
  await using transport = openGenericNetlink();
  const families = await listFamilies(transport, { signal });
  assert.ok(families.some(({ name }) => name === "nlctrl"));
  for (const family of families) {
    assert.deepEqual(await getFamily(transport, family.name, { signal }), family);
  }
});
