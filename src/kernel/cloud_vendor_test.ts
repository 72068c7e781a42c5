import assert from "node:assert/strict";
import { join } from "node:path";
import { adviseOnHostGw, findCloudVendor } from "./cloud_vendor.ts";

const machines: [files: Record<string, string>, cloud: string | undefined][] = [
  [{ sys_vendor: "Alibaba Cloud", product_name: "Alibaba Cloud ECS" }, "Alibaba Cloud"],
  [{ sys_vendor: "Tencent Cloud", product_name: "CVM" }, "Tencent Cloud"],
  [{ sys_vendor: "Amazon EC2", product_name: "m5.large" }, "Amazon EC2"],
  [{ sys_vendor: "Google", product_name: "Google Compute Engine" }, "Google Cloud"],
  [{
    sys_vendor: "Microsoft Corporation",
    product_name: "Virtual Machine",
    chassis_asset_tag: "7783-7084-3265-9085-8269-3286-77",
  }, "Microsoft Azure"],
  [{ sys_vendor: "OpenStack Foundation", product_name: "OpenStack Nova" }, "OpenStack"],
  [{ sys_vendor: "Microsoft Corporation", product_name: "Virtual Machine" }, undefined],
  [{ sys_vendor: "QEMU", product_name: "Standard PC (Q35 + ICH9, 2009)" }, undefined],
  [{ sys_vendor: "Dell Inc.", product_name: "PowerEdge R640" }, undefined],
  [{}, undefined],
];

Deno.test("findCloudVendor() reads what the firmware says", async () => {
  for (const [files, cloud] of machines) {
    const root = await Deno.makeTempDir();
    try {
      for (const [name, text] of Object.entries(files)) {
        await Deno.writeTextFile(join(root, name), `${text}\n`);
      }
      assert.equal(findCloudVendor({ root }), cloud, JSON.stringify(files));
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  }
});

Deno.test("adviseOnHostGw() names the backends that work there", () => {
  assert.match(adviseOnHostGw("Alibaba Cloud"), /use backend ali-vpc or vxlan/);
  assert.match(adviseOnHostGw("Amazon EC2"), /use backend vxlan/);
});
