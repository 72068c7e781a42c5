/**
 * Writes leases of other hosts into etcd, as a process in etcd's namespace:
 * `lease_writer.ts fill ENDPOINT COUNT` puts COUNT leases of 10.0.0.0/8;
 * `lease_writer.ts touch ENDPOINT COUNT` changes COUNT of them, one each 50 ms, and prints the time
 * at which each was sent, in milliseconds since the epoch.
 *
 * @module
 */
import { Etcd3 } from "etcd3";
import { ETCD_PREFIX } from "../lab/lab.ts";

const [action, endpoint, count] = Deno.args;
const etcd = new Etcd3({ hosts: endpoint! });

function key(i: number): string {
  return `${ETCD_PREFIX}/subnets/10.${1 + (i >> 8)}.${i & 255}.0-24`;
}

function value(i: number, generation = 0): string {
  const host = `172.${16 + generation}.${i >> 8}.${i & 255}`;
  return JSON.stringify({ PublicIP: host, PublicIPv6: null });
}

if (action === "fill") {
  for (let i = 0; i < Number(count); i += 500) {
    const puts = Array.from(
      { length: Math.min(500, Number(count) - i) },
      (_, n) => etcd.put(key(i + n)).value(value(i + n)).exec(),
    );
    await Promise.all(puts);
  }
} else {
  for (let i = 0; i < Number(count); i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const sentAt = Date.now();
    await etcd.put(key(i)).value(value(i, 1)).exec();
    console.log(sentAt);
  }
}
etcd.close();
