/** The cloud that this host runs in, by its firmware; no metadata service is asked. @module */
import { join } from "node:path";
import { Libc } from "../../ffi/libc/open.ts";

/** DMI strings of each cloud's machines: `sys_vendor`, `product_name` and others. */
const VENDORS: readonly (readonly [pattern: RegExp, cloud: string])[] = [
  [/Alibaba Cloud/i, "Alibaba Cloud"],
  [/Tencent Cloud/i, "Tencent Cloud"],
  [/Huawei ?Cloud/i, "Huawei Cloud"],
  [/Amazon EC2/i, "Amazon EC2"],
  [/Google( Compute Engine)?$/im, "Google Cloud"],
  [/7783-7084-3265-9085-8269-3286-77/, "Microsoft Azure"],
  [/OracleCloud/i, "Oracle Cloud"],
  [/OpenStack/i, "OpenStack"],
];

const FILES = ["sys_vendor", "product_name", "chassis_asset_tag", "bios_vendor"];

/** The name of the cloud; `undefined` if the firmware names none. */
export function findCloudVendor(
  { root = "/sys/class/dmi/id" }: { readonly root?: string } = {},
): string | undefined {
  using libc = Libc.open();
  const text = FILES.map((name) => {
    try {
      return libc.readKernelFile(join(root, name)).trim();
    } catch {
      return ""; // no firmware of this kind, as in many containers
    }
  }).join("\n");
  return VENDORS.find(([pattern]) => pattern.test(text))?.[1];
}

/** Why backend `host-gw` probably does not work in `cloud`, as a sentence for the operator. */
export function adviseOnHostGw(cloud: string): string {
  const better = cloud === "Alibaba Cloud" ? "ali-vpc or vxlan" : "vxlan";
  return `Backend host-gw routes packets of pods to the other hosts directly, and this host is one ` +
    `of ${cloud}, whose network drops what is not for an instance's own address, unless its own ` +
    `routes and checks say otherwise: use backend ${better} if pods of other hosts are not reached`;
}
