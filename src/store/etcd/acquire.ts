/**
 * Acquires a lease: lists, decides, writes, and begins again if another host was faster.
 *
 * @module
 */
import { OperatorError } from "../../errors.ts";
import { encodeLeaseKey, encodeLeaseValue, parseLeasesInSteps } from "../../lease/codec.ts";
import {
  formatSubnet,
  type Lease,
  type LeaseAttributes,
  type LeaseSubnet,
} from "../../lease/lease.ts";
import { sharesSubnet } from "../../lease/ownership.ts";
import { inSlices } from "../../util/slices.ts";
import { Backoff } from "../../util/time.ts";
import type { CallOptions } from "../errors.ts";
import type { LeaseRequest } from "../lease_store.ts";
import type { Entry, LeaseSpace } from "../keys/key_space.ts";
import { findEarlierRival, planAcquire } from "./plan_acquire.ts";

/** Upstream's lease time. */
export const LEASE_TTL_SECONDS = 24 * 3600;

export interface AcquireOptions extends LeaseRequest {
  /** The leases of all hosts. */
  readonly space: LeaseSpace;
  /** @default {LEASE_TTL_SECONDS} */
  readonly ttlSeconds?: number;
  readonly random?: () => number;
}

/** A lease as it was acquired, and the list of all from before. */
export interface Acquired {
  readonly lease: Lease;
  readonly entry: Entry;
  readonly listed: readonly Entry[];
}

/**
 * Acquires a lease: the one that our public address has, else the subnet of the last run, else a
 * free one. A lost race starts again from a fresh list. Waits for a free subnet; fails as the store
 * fails.
 */
export async function acquire(
  options: AcquireOptions,
  { signal }: CallOptions,
): Promise<Acquired> {
  const { space, network, log, ttlSeconds = LEASE_TTL_SECONDS } = options;
  let { attributes, previous } = options;
  const races = new Backoff({ initialMs: 50, maxMs: 5_000 });
  const exhausted = new Backoff({ initialMs: 5_000, maxMs: 60_000 });
  if (!attributes.publicIp && !attributes.publicIpv6) {
    throw new OperatorError("Cannot lease a subnet: this host has no public address to own it by");
  }
  for (let waiting = false;; await races.wait({ signal })) {
    let listed = await space.list({ signal });
    await inSlices(parseLeasesInSteps(listed), { signal });
    const step = planAcquire({
      network,
      owner: attributes,
      entries: listed,
      previous,
      ...(options.addresses ? { addresses: await options.addresses({ signal }) } : {}),
      ...(options.occupied ? { occupied: await options.occupied({ signal }) } : {}),
      random: options.random ?? Math.random,
    });
    if ("lease" in step) attributes = options.inherit?.(step.lease.attributes) ?? attributes;
    const value = encodeLeaseValue(attributes);
    let entry: Entry | undefined;
    let subnet: LeaseSubnet;
    switch (step.action) {
      case "wait":
        if (!waiting) log.error(step.reason);
        waiting = true;
        options.onWaiting?.(step.reason);
        await exhausted.wait({ signal });
        continue;
      case "remove":
        log.warn(`Removing the own lease ${step.entry.key}: ${step.reason}`);
        await space.remove(step.entry, { signal });
        continue;
      case "reuse":
        subnet = step.lease.subnet;
        warnOfSharedAddress(step.lease, options, attributes);
        // An unchanged value is only prolonged, which other hosts do not see.
        entry = !step.entry.expires && step.entry.value === value
          ? step.entry
          : step.entry.value === value
          ? await space.renew(step.entry, ttlSeconds, { signal })
          : await space.update(step.entry, value, {
            signal,
            lifetimeSeconds: step.entry.expires ? ttlSeconds : undefined,
          });
        if (entry) log.info("Lease kept", { subnet: formatSubnet(subnet) });
        break;
      case "move": {
        subnet = step.subnet;
        const key = encodeLeaseKey(subnet);
        const ttl = step.entry.expires ? ttlSeconds : undefined;
        entry = await space.move(step.entry, key, value, { signal, lifetimeSeconds: ttl });
        if (!entry) break;
        log.info("Lease changed", {
          subnet: formatSubnet(subnet),
          before: formatSubnet(step.lease.subnet),
          why: step.reason,
        });
        // What stays now has priority over whatever else happens.
        previous = { ...previous, ...step.kept };
        // Another host may have chosen the same added subnet; and a watch goes on from a list
        // without the old key.
        listed = await space.list({ signal });
        if (entry.expires && findEarlierRival(entry, listed) !== undefined) continue;
        break;
      }
      case "create":
        subnet = step.subnet;
        // If the outcome is unknown this throws, and the next attempt finds our own lease.
        entry = await space.create(encodeLeaseKey(subnet), value, {
          signal,
          lifetimeSeconds: ttlSeconds,
        });
        // With one family, who shares the subnet shares the key.
        if (entry && subnet.ipv4 && subnet.ipv6) {
          const rival = findEarlierRival(entry, await space.list({ signal }));
          if (rival !== undefined) {
            log.info("Another host leased a part of the subnet at the same time; giving it back", {
              subnet: formatSubnet(subnet),
              other: rival,
            });
            await space.remove(entry, { signal });
            entry = undefined;
          }
        }
        if (entry) log.info("Lease taken", { subnet: formatSubnet(subnet), why: step.reason });
        break;
    }
    if (entry) return { lease: { key: entry.key, subnet, attributes }, entry, listed };
    log.debug("Lost a race for a subnet; listing again", { subnet: formatSubnet(subnet) });
  }
}

/**
 * Warns that a lease with our address may be another host's, as this host had another subnet
 * before: a virtual IP that fails over takes the lease of its former host along.
 */
function warnOfSharedAddress(
  { key, subnet }: Lease,
  { previous, log }: LeaseRequest,
  { publicIp, publicIpv6 }: LeaseAttributes,
): void {
  if (!previous || sharesSubnet(key, previous)) return;
  log.warn(
    `The lease of ${formatSubnet(subnet)} has the address of this host, ${
      publicIp ?? publicIpv6
    }, but this host had ${formatSubnet(previous)} before: if another host has that address too, ` +
      "such as a virtual IP, both would share one subnet; give each host its own with --iface or " +
      "--public-ip",
  );
}
