// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * Writes leases of other hosts into etcd, as a process in etcd's namespace:
 * `lease_writer.ts fill ENDPOINT COUNT [BACKEND]` puts COUNT leases of 10.0.0.0/8, of alloc or vxlan;
 * `lease_writer.ts empty ENDPOINT COUNT` deletes them;
 * `lease_writer.ts flap ENDPOINT COUNT [BACKEND]` does one after the other, and prints the
 * milliseconds that it took;
 * `lease_writer.ts touch ENDPOINT COUNT` changes COUNT of them, one each 50 ms, and prints the time
 * at which each was sent, in milliseconds since the epoch;
 * `lease_writer.ts churn ENDPOINT COUNT BACKEND FIRST PERIOD` makes COUNT changes beside the first
 * FIRST leases, one each PERIOD milliseconds: new leases, other addresses of them, their ends;
 * `lease_writer.ts grow …` likewise makes COUNT new leases.
 *
 * @module
 */
import { Etcd3 } from "etcd3";
import { ETCD_PREFIX } from "../lab/lab.ts";

const [action, endpoint, count, backend = "alloc", first, period] = Deno.args;
const etcd = new Etcd3({ hosts: endpoint! });

function key(i: number): string {
  return `${ETCD_PREFIX}/subnets/10.${1 + (i >> 8)}.${i & 255}.0-24`;
}

function value(i: number, generation = 0): string {
  const host = `172.${16 + generation}.${i >> 8}.${i & 255}`;
  return JSON.stringify({
    PublicIP: host,
    PublicIPv6: null,
    ...(backend === "vxlan"
      ? { BackendType: "vxlan", BackendData: { VNI: 1, VtepMAC: vtepMac(i) } }
      : {}),
  });
}

function vtepMac(i: number): string {
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  return `02:00:5e:00:${hex(i >> 8)}:${hex(i & 255)}`;
}

/** Calls `act` for every lease, 500 at a time. */
async function forAll(act: (i: number) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < Number(count); i += 500) {
    const length = Math.min(500, Number(count) - i);
    await Promise.all(Array.from({ length }, (_, n) => act(i + n)));
  }
}

if (action === "fill") {
  await forAll((i) => etcd.put(key(i)).value(value(i)).exec());
} else if (action === "empty") {
  await forAll((i) => etcd.delete().key(key(i)).exec());
} else if (action === "flap") {
  await etcd.get("wake-up"); // the connection is not what is measured
  const startedAt = performance.now();
  await forAll((i) => etcd.put(key(i)).value(value(i)).exec());
  await forAll((i) => etcd.delete().key(key(i)).exec());
  console.log(Math.round(performance.now() - startedAt));
} else if (action === "churn" || action === "grow") {
  for (let i = 0; i < Number(count); i++) {
    await new Promise((resolve) => setTimeout(resolve, Number(period)));
    // What comes now moves ten steps later, and goes after twenty.
    const stage = action === "grow" ? 0 : i % 3;
    const number = Number(first) + (action === "grow" ? i : Math.floor(i / 3) % 100 - 10 * stage);
    if (number < Number(first)) continue;
    if (stage === 2) await etcd.delete().key(key(number)).exec();
    else await etcd.put(key(number)).value(value(number, stage)).exec();
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
