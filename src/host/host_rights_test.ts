import assert from "node:assert/strict";
import { backends, findBackend } from "../runtime/mod.ts";
import { OperatorError } from "../errors.ts";
import type { Capability } from "../kernel/capabilities.ts";
import { kernelChanges, requireRights, requireRightsOfHost } from "./host_rights.ts";

const NO_RULES = { ipMasq: false, iptablesForwardRules: false, ipBlackholeRoute: false };
const NONE: ReadonlySet<Capability> = new Set();
const ADMIN: ReadonlySet<Capability> = new Set<Capability>(["CAP_NET_ADMIN"]);

function configured(type: string, options: Record<string, unknown> = {}) {
  return findBackend(type).configure(options);
}

Deno.test("kernelChanges() names what needs a right, and nothing for what needs none", () => {
  const types = backends.map(({ type }) => type).filter((type) =>
    kernelChanges(NO_RULES, configured(type)).length > 0
  );
  assert.deepEqual(types.sort(), ["host-gw", "ipip", "udp", "vxlan"]);
  assert.deepEqual(kernelChanges(NO_RULES, configured("ali-vpc", { Overflow: "vxlan" })), [
    "backend ali-vpc",
  ]);
  assert.deepEqual(
    kernelChanges(
      { ipMasq: true, iptablesForwardRules: true, ipBlackholeRoute: true },
      configured("alloc"),
    ),
    ["--iptables-forward-rules", "--ip-masq", "--ip-blackhole-route"],
  );
});

Deno.test("requireRights() names the capability, what needs it, and how to give it", () => {
  assert.throws(
    () => requireRights({ ...NO_RULES, ipMasq: true }, configured("vxlan"), NONE),
    (error: Error) => {
      assert.ok(error instanceof OperatorError);
      assert.match(
        error.message,
        /^The capability CAP_NET_ADMIN is missing, which backend vxlan, --ip-masq needs: run it as /,
      );
      assert.match(error.message, /AmbientCapabilities=.*securityContext/);
      return true;
    },
  );
  requireRights(NO_RULES, configured("alloc"), NONE);
  requireRights(NO_RULES, configured("vxlan"), ADMIN);
});

Deno.test("requireRightsOfHost() asks the kernel, and for raw sockets only where they are used", async () => {
  const check = (program: string, mayChange = true) =>
    requireRightsOfHost({ ...NO_RULES, ipMasq: true }, configured("alloc"), {
      firewall: { describe: () => ({ program, problems: [] }) },
      mayChange: () => Promise.resolve(mayChange),
      capabilities: ADMIN,
    });
  await check("iptables 1.8.9 (nft)");
  await check("nftables 1.0.6");
  await assert.rejects(
    check("iptables 1.8.9 (legacy)"),
    /CAP_NET_RAW is missing, which iptables 1\.8\.9 \(legacy\) needs/,
  );
  await assert.rejects(
    check("nftables 1.0.6", false),
    /CAP_NET_ADMIN is missing in the user namespace that owns this network, which --ip-masq needs/,
  );
  await requireRightsOfHost(NO_RULES, configured("alloc"), {
    firewall: { describe: () => ({ program: "none", problems: [] }) },
    mayChange: () => Promise.reject(new Error("nobody asked")),
    capabilities: NONE,
  });
});
