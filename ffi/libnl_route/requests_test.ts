import assert from "node:assert/strict";
import { toolTest } from "../../tests/prerequisites.ts";
import { Libc } from "../libc/open.ts";
import { Attributes } from "../libnl/messages.ts";
import { openLibnl } from "../libnl/open.ts";
import { nlmsghdr } from "../libnl/structs.ts";
import { IFLA_INFO_DATA, IFLA_LINKINFO, IFLA_VXLAN_LINK, IFLA_VXLAN_PORT } from "./constants.ts";
import { openLibnlRoute } from "./open.ts";
import { buildLinkAdd } from "./requests.ts";
import { ifinfomsg } from "./structs.ts";

toolTest("buildLinkAdd() writes a VXLAN port in the two bytes that the kernel expects", [
  "libnl",
  "libnl-route",
], () => {
  using libc = Libc.open();
  using libnl = openLibnl(libc);
  using route = openLibnlRoute(libnl);
  const vxlan = { vni: 5, port: 8472, underlayIndex: 7 };
  const message = buildLinkAdd(route, { name: "flannel.5", kind: "vxlan", vxlan });
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const link = new Attributes(IFLA_LINKINFO)
    .parse(view, nlmsghdr.size + ifinfomsg.size, view.byteLength);
  const info = new Attributes(IFLA_INFO_DATA).parseNested(link, IFLA_LINKINFO);
  const data = new Attributes(IFLA_VXLAN_PORT).parseNested(info, IFLA_INFO_DATA);
  assert.deepEqual([...data.bytes(IFLA_VXLAN_PORT)!], [8472 >> 8, 8472 & 255]);
  assert.equal(data.uint32(IFLA_VXLAN_LINK), 7, "its neighbours stay as they are");
});
