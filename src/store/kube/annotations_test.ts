import assert from "node:assert/strict";
import { Address } from "../../net/mod.ts";
import {
  annotationNames,
  encodeAnnotations,
  leaseEntry,
  missingAnnotations,
  parseNode,
} from "./annotations.ts";

const names = annotationNames("flannel.alpha.coreos.com");
assert.ok(typeof names === "object");

Deno.test("annotationNames() completes a prefix as upstream does, and refuses what it refuses", () => {
  const managed = (prefix: string) => {
    const found = annotationNames(prefix);
    return typeof found === "string" ? undefined : found.managed;
  };
  assert.equal(managed("flannel.alpha.coreos.com"), "flannel.alpha.coreos.com/kube-subnet-manager");
  assert.equal(
    managed("flannel.alpha.coreos.com/"),
    "flannel.alpha.coreos.com/kube-subnet-manager",
  );
  assert.equal(managed("org.com/x"), "org.com/x-kube-subnet-manager");
  assert.equal(managed("org.com/x-"), "org.com/x-kube-subnet-manager");
  for (const bad of ["", "org", "a.b/c/d", "org.com/UP", "org/x"]) {
    assert.equal(managed(bad), undefined, bad);
  }
});

const plain = (changes: Readonly<Record<string, string | null>>) =>
  Object.fromEntries(
    Object.entries(changes).map(([key, value]) => [key.split("/")[1], value]),
  );

Deno.test("encodeAnnotations() writes the bytes that upstream writes, for each backend", () => {
  const publicIp = Address.parse("192.0.2.1");
  const publicIpv6 = Address.parse("fd00::1");
  const backendData = { VNI: 1, VtepMAC: "02:00:00:00:00:01" };
  const encode = (attributes: Parameters<typeof encodeAnnotations>[0]) =>
    plain(encodeAnnotations(attributes, names, {}));
  const data = '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}';
  const common = { "kube-subnet-manager": "true" };
  assert.deepEqual(encode({ publicIp, backendType: "vxlan", backendData }), {
    ...common,
    ...{ "backend-type": "vxlan", "backend-data": data, "public-ip": "192.0.2.1" },
    ...{ "backend-v6-data": null, "public-ipv6": null },
  });
  assert.deepEqual(
    encode({ publicIp, publicIpv6, backendType: "vxlan", backendV6Data: backendData }),
    {
      ...common,
      ...{ "backend-type": "vxlan", "backend-data": null, "public-ip": null },
      ...{ "backend-v6-data": data, "public-ipv6": "fd00::1" },
    },
  );
  assert.deepEqual(encode({ publicIpv6, backendType: "host-gw" }), {
    ...common,
    ...{ "backend-type": "host-gw", "backend-data": "null", "public-ip": "0.0.0.0" },
    ...{ "backend-v6-data": "null", "public-ipv6": "fd00::1" },
  });
  assert.deepEqual(encode({ publicIp, publicIpv6, backendType: "" }), {
    ...common,
    ...{ "backend-type": "", "backend-data": "null", "public-ip": "192.0.2.1" },
    ...{ "backend-v6-data": null, "public-ipv6": null },
  });
});

Deno.test("missingAnnotations() has what differs alone", () => {
  const wanted = { a: "1", b: "2", c: null, d: null };
  assert.deepEqual(missingAnnotations(wanted, { a: "1", b: "x", c: "y" }), { b: "2", c: null });
  assert.equal(missingAnnotations(wanted, { a: "1", b: "2", e: "5" }), undefined);
});

Deno.test("leaseEntry() keeps one family where the other one's annotations are wrong", () => {
  const node = (annotations: Record<string, string>, podCIDRs: string[]) =>
    parseNode({
      metadata: {
        name: "n",
        uid: "u",
        annotations: Object.fromEntries(
          Object.entries({ "kube-subnet-manager": "true", ...annotations })
            .map(([key, value]) => [`flannel.alpha.coreos.com/${key}`, value]),
        ),
      },
      spec: { podCIDRs },
    }, names)!;
  const both = ["10.24.1.0/24", "fd00:24:0:1::/64"];
  const good = { "public-ip": "192.0.2.1", "backend-type": "vxlan", "backend-data": '{"VNI":1}' };
  assert.deepEqual(leaseEntry(node({ ...good, "public-ipv6": "junk" }, both), names), {
    key: "n/u",
    order: " n u",
    subnet: "10.24.1.0-24",
    value:
      '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}',
  });
  const v6 = { "public-ip": "", "public-ipv6": "fd00::1", "backend-v6-data": "{}" };
  assert.equal(leaseEntry(node(v6, both), names)!.subnet, "0.0.0.0-0&fd00:24:0:1::-64");
  assert.equal(leaseEntry(node(good, []), names), undefined);
  assert.equal(parseNode({ metadata: { name: 1 } }, names), undefined);
});
