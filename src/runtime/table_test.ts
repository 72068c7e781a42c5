import assert from "node:assert/strict";
import { ConfigError } from "../errors.ts";
import { backends, findBackend } from "./mod.ts";

function faultOf(type: string): string {
  try {
    findBackend(type);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.faults.length, 1);
    return error.faults[0]!;
  }
  return "";
}

Deno.test("findBackend() knows every backend by its own type", () => {
  for (const entry of backends) assert.equal(findBackend(entry.type), entry);
  assert.equal(new Set(backends.map(({ type }) => type)).size, backends.length);
});

Deno.test("findBackend() names the type that was likely meant", () => {
  for (
    const [type, meant] of [
      ["hostgw", "host-gw"],
      ["host_gw", "host-gw"],
      ["alivpc", "ali-vpc"],
      ["ali_vpc", "ali-vpc"],
      ["vxlam", "vxlan"],
      ["ip-ip", "ipip"],
    ]
  ) {
    const fault = faultOf(type!);
    assert.ok(fault.startsWith(`unknown backend type "${type}"; did you mean "${meant}"?`), fault);
  }
  assert.match(faultOf("carrier-pigeon"), /^unknown backend type "carrier-pigeon"; this flanneld/);
  assert.match(
    faultOf("vxlan\u200b"),
    /"vxlan\\u\{200b\}", which holds U\+200B, a zero-width space/,
  );
  assert.ok(faultOf("x".repeat(10_000)).length < 250);
});

Deno.test("findBackend() says of upstream's other backends that they are not built here", () => {
  for (const type of ["wireguard", "extension", "tencent-vpc", "ipsec", "tencentvpc"]) {
    assert.match(
      faultOf(type),
      /^backend type ".*" is upstream flannel's and is not built here yet/,
    );
  }
  for (const type of ["aws-vpc", "gce", "awsvpc"]) {
    assert.match(faultOf(type), /is upstream flannel's until v0\.19 and is not built here yet/);
  }
});
