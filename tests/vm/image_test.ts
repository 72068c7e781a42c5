import assert from "node:assert/strict";
import { parseUris } from "./image.ts";

Deno.test("parseUris() reads names and versions, epochs included, and nothing else", () => {
  const text = `Reading package lists...
The following NEW packages will be installed:
  busybox libnl-3-200
'http://deb.debian.org/debian/pool/main/b/busybox/busybox_1.35.0-4%2bdeb12u1%2bb1_amd64.deb' busybox_1%3a1.35.0-4+deb12u1+b1_amd64.deb 452120 MD5Sum:0123
'http://deb.debian.org/debian/pool/main/libn/libnl3/libnl-3-200_3.7.0-0.2%2bb1_amd64.deb' libnl-3-200_3.7.0-0.2+b1_amd64.deb 63100 SHA256:4567
'http://deb.debian.org/debian/pool/main/n/netbase/netbase_6.4_all.deb' netbase_6.4_all.deb 12840
`;
  assert.deepEqual(parseUris(text), [
    { name: "busybox", version: "1:1.35.0-4+deb12u1+b1" },
    { name: "libnl-3-200", version: "3.7.0-0.2+b1" },
    { name: "netbase", version: "6.4" },
  ]);
  assert.deepEqual(parseUris(""), []);
});
