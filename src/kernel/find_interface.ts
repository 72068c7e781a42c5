/** Finds the external interface in the kernel's lists, waiting for one to appear. @module */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { OperatorError } from "../errors.ts";
import type { Address } from "../net/mod.ts";
import { deadline } from "../util/time.ts";
import {
  type ExternalInterface,
  type InterfaceChoice,
  type InterfaceCriteria,
  selectExternalInterface,
} from "./external_interface.ts";
import { type Netlink, type Route, TABLE_MAIN } from "./netlink.ts";
import { type InterfaceFacts, usableAddresses } from "./own_address.ts";

/** Reads the kernel's lists that {@linkcode selectExternalInterface} needs. */
export async function readInterfaceFacts(
  netlink: Netlink,
  criteria: InterfaceCriteria,
  options: { signal: AbortSignal },
): Promise<InterfaceFacts> {
  const links = await netlink.listLinks(options);
  const addresses = await netlink.listAddresses(options);
  const routes = await netlink.listRoutes({ ...options, table: TABLE_MAIN });
  const route = criteria.canReach &&
    await routeIfAny(netlink, criteria.canReach, options);
  return { links, addresses, routes, ...(route ? { routeToCanReach: route } : {}) };
}

async function routeIfAny(
  netlink: Netlink,
  address: Address,
  options: { signal: AbortSignal },
): Promise<Route | undefined> {
  try {
    return await netlink.routeGet(address, options);
  } catch (error) {
    // No route, or one that refuses (prohibit, blackhole): unreachable either way.
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}

export interface WaitForInterfaceOptions {
  readonly signal: AbortSignal;
  /** How long to wait for one; 0: fail at once. */
  readonly timeoutMs: number;
  /** Called when it begins to wait, and whenever the reasons change. */
  readonly onWaiting?: (explain: readonly string[]) => void;
}

/**
 * Chooses the external interface, waiting for links, addresses and routes to appear.
 *
 * @throws {OperatorError} If there is none in time, with each candidate and why it lost.
 * @throws `signal.reason` on abort.
 */
export async function waitForExternalInterface(
  netlink: Netlink,
  criteria: InterfaceCriteria,
  { signal, timeoutMs, onWaiting }: WaitForInterfaceOptions,
): Promise<Extract<InterfaceChoice, { found: ExternalInterface }> & { facts: InterfaceFacts }> {
  const choose = async () => {
    const facts = await readInterfaceFacts(netlink, criteria, { signal });
    return { ...selectExternalInterface(criteria, facts), facts };
  };
  const noInterface = ({ explain, facts }: Awaited<ReturnType<typeof choose>>) => {
    const waited = timeoutMs > 0 ? ` within ${timeoutMs / 1000} s` : "";
    const reasons = explain.length > 0 ? explain.join("; ") : "this host has no candidate";
    return new OperatorError(
      `Cannot find the external interface${waited}: ${reasons}. Name it with --iface` +
        `${listUsable(criteria, facts)}, or give this host a default route`,
    );
  };
  if (timeoutMs <= 0) {
    const choice = await choose();
    if (choice.found) return choice;
    throw noInterface(choice);
  }
  using limit = deadline(timeoutMs, { signal });
  // Subscribed before the first look: nothing that comes in between is missed.
  await using events = netlink.subscribe({
    signal: limit.signal,
    kinds: ["link", "address", "route"],
  });
  const steps = events[Symbol.asyncIterator]();
  let explained = "";
  for (;;) {
    const choice = await choose();
    if (choice.found) return choice;
    const text = choice.explain.join("\n");
    if (text !== explained) onWaiting?.(choice.explain);
    explained = text;
    try {
      await steps.next();
    } catch (error) {
      signal.throwIfAborted();
      if (!limit.signal.aborted) throw error;
      throw noInterface(choice);
    }
  }
}

/** Links to suggest at most. */
const LISTED_LINKS = 8;

/** ` (eth0 has 10.0.1.10, eth1 has 10.1.0.7)`: the links that could be named. */
function listUsable({ families }: InterfaceCriteria, facts: InterfaceFacts): string {
  const listed = facts.links.filter(({ up }) => up).flatMap((link) => {
    const best = families.map((family) => usableAddresses(link, family, facts)[0]?.address.address);
    return best.includes(undefined) ? [] : [`${link.name} has ${best.join(" and ")}`];
  });
  return listed.length === 0 ? "" : ` (${listed.slice(0, LISTED_LINKS).join(", ")})`;
}
