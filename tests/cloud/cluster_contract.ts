/**
 * What a cluster of hosts does with the routes of a cloud, whichever cloud it is: light hosts with a
 * store in memory, on virtual time.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Prefix } from "../../src/net/mod.ts";
import { delay } from "../../src/util/time.ts";
import { MemoryRegistry, MemoryStore, openMemoryStore } from "../fakes/memory_registry.ts";
import { type LightHosts, type LightHostsOptions, startLightHosts } from "../support/light_host.ts";
import { settleAll } from "../support/settle_all.ts";
import { VirtualTime } from "../support/virtual_time.ts";

const NETWORK = Prefix.parse("10.24.0.0/16");
const GRACE_SECONDS = 600;
const RESYNC_SECONDS = 60;
/** More than any start or repair takes. */
const SOON_SECONDS = 120;

/** A cloud under test. */
export interface CloudUnderTest extends AsyncDisposable {
  /** `Backend.Type`, and the folder in the store. */
  readonly type: string;
  readonly instances: readonly { readonly id: string; readonly privateIp: string }[];
  readonly hostOptions: Pick<LightHostsOptions, "flagsOf" | "backendOf" | "environment">;
  /** Every route, as `10.24.1.0/24 <instance>`. */
  routes(): readonly string[];
  /** Adds a route that somebody else made, to another instance; returns it as `routes` shows it. */
  addForeign(destination: string): string;
  /** Removes a route behind the hosts' back. */
  remove(destination: string): void;
  /** Ends an instance for good. */
  release(instanceId: string): void;
  /** Sets how many routes there may be. */
  setQuota(routes: number): void;
  /** Has the next writes fail, after they were accepted where the cloud has such a thing. */
  failNext(writes: number): void;
  /** Whether a write has been accepted that is not in effect yet. */
  isWriting(): boolean;
  /** Writes so far. */
  readonly writes: number;
}

/** Opens a cloud of four instances and no routes of the network. */
export type OpenCloud = (options: { readonly nowMs: () => number }) => Promise<CloudUnderTest>;

/** Runs the suite; some of it holds only where several routes may share a destination. */
export function clusterContract(
  title: string,
  { sharesDestinations = false }: { readonly sharesDestinations?: boolean },
  open: OpenCloud,
): void {
  const test = (name: string, story: (world: World) => Promise<void>) =>
    Deno.test(`${title}: ${name}`, async () => {
      using time = new VirtualTime();
      const cloud = await open({ nowMs: () => time.nowMs });
      const world = new World(time, cloud);
      time.onJump = () => world.tick();
      try {
        await time.run(story(world));
      } finally {
        await time.run(world[Symbol.asyncDispose]());
      }
    });

  test("three hosts get a route each, and then nothing is written any more", async (world) => {
    world.start(0, 1, 2);
    await world.ready(0, 1, 2);
    assert.deepEqual(world.routed, world.wanted(0, 1, 2));
    const { writes } = world.cloud;
    await world.sleep(5 * RESYNC_SECONDS);
    assert.equal(world.cloud.writes, writes);
    assert.deepEqual(world.warnings, []);
  });

  test("another host leads on when the leader is killed in the middle of a write", async (world) => {
    world.start(0);
    await world.ready(0);
    assert.equal(world.leader, 0);
    world.start(1, 2);
    await world.until(() => world.cloud.isWriting(), "a write");
    await world.kill(0);
    await world.ready(1, 2);
    await world.until(() => world.leader === 1 || world.leader === 2, "another leader");
    assert.deepEqual(world.routed, world.wanted(0, 1, 2), "the killed one's pods run on");
  });

  test("the route of a host that has left goes, but not before the grace is over", async (world) => {
    world.start(0, 1, 2);
    await world.ready(0, 1, 2);
    const all = world.wanted(0, 1, 2);
    await world.kill(2);
    world.dropLease(2);
    await world.sleep(2 * GRACE_SECONDS);
    assert.deepEqual(world.routed, all, "the instance exists and may have pods");
    world.cloud.release(world.id(2));
    await world.until(() => world.routed.length === 2, "the removal", 2 * GRACE_SECONDS);
    assert.deepEqual(world.routed, world.wanted(0, 1));
  });

  test("the route of a released instance outlives its lease by the grace", async (world) => {
    world.start(0, 1, 2);
    await world.ready(0, 1, 2);
    await world.kill(2);
    world.cloud.release(world.id(2));
    world.dropLease(2);
    await world.sleep(GRACE_SECONDS - 2 * RESYNC_SECONDS);
    assert.equal(world.routed.length, 3);
    await world.until(() => world.routed.length === 2, "the removal", 5 * RESYNC_SECONDS);
  });

  test("a subnet that a host has left and another one leases leads to the latter", async (world) => {
    world.start(0);
    await world.ready(0);
    world.start(1);
    await world.ready(1);
    const subnet = world.subnet(1)!;
    await world.kill(1);
    world.dropLease(1);
    await world.sleep(RESYNC_SECONDS);
    world.startAt(2, subnet);
    await world.ready(2);
    assert.equal(world.subnet(2), subnet);
    assert.deepEqual(world.routed, world.wanted(0, 2));
  });

  test("what others have routed is left alone, and stands in the way of one host only", async (world) => {
    const elsewhere = world.cloud.addForeign("10.24.200.0/24");
    const inTheWay = world.cloud.addForeign("10.24.77.0/24");
    world.start(0, 1);
    await world.ready(0, 1);
    world.startAt(2, "10.24.77.0/24");
    await world.until(
      () => world.reasons(2).some((reason) => reason.includes("is not flanneld's")),
      "the reason",
    );
    await world.sleep(2 * GRACE_SECONDS);
    assert.deepEqual(world.routed, [...world.wanted(0, 1), elsewhere, inTheWay].sort());
    assert.deepEqual(world.warnings.filter((line) => /Leaves route entries/.test(line)), []);
    world.cloud.remove("10.24.77.0/24");
    await world.ready(2);
    assert.deepEqual(world.routed, [...world.wanted(0, 1, 2), elsewhere].sort());
  });

  test("a host for which there is no room says so, and gets its route when there is", async (world) => {
    world.cloud.setQuota(2);
    world.start(0, 1);
    await world.ready(0, 1);
    world.start(2);
    await world.until(
      () => world.reasons(2).some((reason) => /is full/.test(reason)),
      "the reason",
    );
    assert(world.warnings.some((line) => /is full: hosts without an entry/.test(line)));
    assert.deepEqual(world.routed, world.wanted(0, 1));
    world.cloud.setQuota(100);
    // Now and then one host finds out.
    await world.until(() => world.isReady(2), "host 2", 10 * 60);
    assert.deepEqual(world.routed, world.wanted(0, 1, 2));
  });

  test("a route that somebody removes is back within a resync", async (world) => {
    world.start(0, 1);
    await world.ready(0, 1);
    const all = world.wanted(0, 1);
    world.cloud.remove(world.subnet(1)!);
    await world.until(() => world.routed.length === 2, "the route", RESYNC_SECONDS + SOON_SECONDS);
    assert.deepEqual(world.routed, all);
  });

  if (sharesDestinations) {
    test("another's route to the same subnet is told, and left alone", async (world) => {
      world.start(0, 1);
      await world.ready(0, 1);
      const twin = world.cloud.addForeign(world.subnet(1)!);
      await world.until(() => !world.isReady(1), "the trouble", RESYNC_SECONDS + SOON_SECONDS);
      assert.match(world.reasons(1).join(), /stands in its place and is not flanneld's/);
      assert.deepEqual(world.routed, [...world.wanted(0, 1), twin].toSorted());
    });
  }

  test("a write that fails is repeated until it does not", async (world) => {
    world.cloud.failNext(3);
    world.start(0, 1);
    await world.ready(0, 1);
    assert.deepEqual(world.routed, world.wanted(0, 1));
  });
}

/** A cluster in a cloud. */
class World implements AsyncDisposable {
  readonly cloud: CloudUnderTest;
  readonly #time: VirtualTime;
  readonly #store = new MemoryStore();
  readonly #stop = new AbortController();
  readonly #daemons = new Map<number, { hosts: LightHosts; registry: MemoryRegistry }>();
  /** Of daemons that do not run any more. */
  readonly #subnets = new Map<number, string>();
  readonly #lines: string[] = [];
  #tickedMs = 0;

  constructor(time: VirtualTime, cloud: CloudUnderTest) {
    this.#time = time;
    this.cloud = cloud;
    this.#store.setConfig(JSON.stringify({
      Network: String(NETWORK),
      SubnetLen: 24,
      Backend: {
        Type: cloud.type,
        ResyncSeconds: RESYNC_SECONDS,
        RouteGraceSeconds: GRACE_SECONDS,
      },
    }));
  }

  /** Lets leases run out. */
  tick(): void {
    this.#store.advance((this.#time.elapsedMs - this.#tickedMs) / 1_000);
    this.#tickedMs = this.#time.elapsedMs;
  }

  start(...numbers: readonly number[]): void {
    for (const number of numbers) this.#startOne(number, undefined);
  }

  /** Starts a host that had this subnet before. */
  startAt(number: number, subnet: string): void {
    this.#startOne(number, subnet);
  }

  #startOne(number: number, subnet: string | undefined): void {
    const registry = new MemoryRegistry(this.#store);
    const instance = this.cloud.instances[number]!;
    const hosts = startLightHosts({
      ...this.cloud.hostOptions,
      openStore: () => Promise.resolve(openMemoryStore(registry)),
      instances: [{
        ...instance,
        ...(subnet === undefined ? {} : { previous: { ipv4: Prefix.parse(subnet) } }),
      }],
      signal: this.#stop.signal,
    });
    this.#daemons.set(number, { hosts, registry });
  }

  /** Ends a daemon as SIGKILL does: nothing is given back. */
  async kill(number: number): Promise<void> {
    const { hosts, registry } = this.#daemons.get(number)!;
    this.#subnets.set(number, this.subnet(number)!);
    this.#daemons.delete(number);
    registry.disconnect();
    await hosts[Symbol.asyncDispose]();
    this.#lines.push(...hosts.lines);
  }

  /** Deletes a host's lease, as the end of its time does. */
  dropLease(number: number): void {
    for (const { key, value } of this.#store.entries()) {
      if (value.includes(`"${this.id(number)}"`)) this.#store.delete(key);
    }
  }

  id(number: number): string {
    return this.cloud.instances[number]!.id;
  }

  subnet(number: number): string | undefined {
    return this.#daemons.get(number)?.hosts.hosts[0]?.subnet ?? this.#subnets.get(number);
  }

  reasons(number: number): readonly string[] {
    return this.#daemons.get(number)!.hosts.hosts[0]!.reasons;
  }

  get leader(): number | undefined {
    const text = this.#store.area(`${this.cloud.type}/election`).get("writer")?.value;
    const id = text === undefined ? undefined : JSON.parse(text).instance;
    const at = this.cloud.instances.findIndex((each) => each.id === id);
    return at < 0 ? undefined : at;
  }

  /** Routes within the network. */
  get routed(): readonly string[] {
    return this.cloud.routes()
      .filter((route) => NETWORK.contains(Prefix.parse(route.split(" ")[0]!))).toSorted();
  }

  /** The routes that these hosts are to have. */
  wanted(...numbers: readonly number[]): readonly string[] {
    return numbers.map((number) => `${this.subnet(number)} ${this.id(number)}`).toSorted();
  }

  get warnings(): readonly string[] {
    const lines = [
      ...this.#lines,
      ...[...this.#daemons.values()].flatMap(({ hosts }) => hosts.lines),
    ];
    return lines.filter((line) => /\b(warn|error)\b/i.test(line));
  }

  sleep(seconds: number): Promise<void> {
    return delay(seconds * 1_000, this.#stop);
  }

  /** Waits until the hosts are ready. */
  async ready(...numbers: readonly number[]): Promise<void> {
    await this.until(() => numbers.every((each) => this.isReady(each)), `hosts ${numbers.join()}`);
  }

  isReady(number: number): boolean {
    return this.#daemons.get(number)!.hosts.hosts[0]!.ready;
  }

  async until(isSo: () => boolean, what: string, withinSeconds = SOON_SECONDS): Promise<void> {
    const until = this.#time.elapsedMs + withinSeconds * 1_000;
    while (!isSo()) {
      if (this.#time.elapsedMs > until) {
        const states = [...this.#daemons.values()].map(({ hosts }) => hosts.describe());
        throw new Error(
          `Waited ${withinSeconds} s in vain for ${what}; there are ${this.routed.join(", ")}\n` +
            states.join("\n"),
        );
      }
      await delay(500, this.#stop);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("The world ends"));
    await settleAll([...this.#daemons.values()].map(({ hosts }) => hosts[Symbol.asyncDispose]()));
    await this.cloud[Symbol.asyncDispose]();
  }
}
