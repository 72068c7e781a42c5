/**
 * This host's lease: the CIDRs of its Node object, and what is published in its annotations. It
 * lasts as long as the object.
 *
 * @module
 */
import { formatSubnet, type Lease, type LeaseAttributes } from "../../lease/lease.ts";
import { patiently } from "../../status/patience.ts";
import { Outage } from "../../status/problems.ts";
import { Cell } from "../../util/cell.ts";
import { BudgetedLog } from "../../util/line_budget.ts";
import { Backoff, delay } from "../../util/time.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { type CallOptions, StoreError } from "../errors.ts";
import type { LeaseRequest, LeaseState, OwnLease } from "../lease_store.ts";
import {
  encodeAnnotations,
  type KubeNode,
  leaseKey,
  missingAnnotations,
  ownSubnet,
  parseAnnotations,
} from "./annotations.ts";
import type { NodeApi } from "./nodes.ts";

/** Options of {@linkcode KubeLease.acquire}. */
export interface KubeLeaseOptions extends Pick<LeaseRequest, "network" | "log"> {
  readonly nodes: NodeApi;
  readonly node: string;
  /** `--set-node-network-unavailable`. */
  readonly setsCondition: boolean;
}

/** The shortest time between two writes. */
const REWRITE_MS = 500;

/** A lease that others give. */
export class KubeLease implements OwnLease {
  readonly lease: Cell<Lease>;
  readonly state = new Cell<LeaseState>({ held: true, expiresAt: undefined });
  readonly #options: KubeLeaseOptions;
  readonly #writing: Outage;
  readonly #lines: BudgetedLog;
  readonly #wakeup = new Wakeup();
  /** As it was seen last; `undefined` while there is none. */
  #node: KubeNode | undefined;
  #isReady = false;
  #wroteAt = -Infinity;
  /** The Node object that was told of the readiness. */
  #toldUid: string | undefined;

  private constructor(options: KubeLeaseOptions, node: KubeNode, lease: Lease) {
    this.#options = options;
    this.#node = node;
    this.lease = new Cell(lease);
    this.#lines = new BudgetedLog(options.log);
    this.#writing = new Outage(options.log, {
      code: "lease-not-renewed",
      object: `node ${options.node}`,
      failed: "Cannot write what this host publishes",
      andThen: "; trying again",
      recovered: "What this host publishes is written again",
    });
  }

  /** Waits for the node and its CIDR, and publishes. */
  static async acquire(
    options: KubeLeaseOptions,
    request: LeaseRequest,
    { signal }: CallOptions,
  ): Promise<KubeLease> {
    const { nodes, node: name, log } = options;
    const attempt = async () => {
      const node = await nodes.get(name, { signal });
      if (node === undefined) {
        const message =
          `node "${name}" does not exist yet; if that is no node's name, set NODE_NAME`;
        throw new StoreError("unavailable", message);
      }
      if (node.podCidrs === undefined) {
        throw new StoreError(
          "unavailable",
          `node "${name}" pod cidr not assigned; kube-controller-manager does so with ` +
            "--allocate-node-cidrs and --cluster-cidr (kubeadm: podSubnet)",
        );
      }
      const subnet = subnetIn(node, options);
      const published = parseAnnotations(node, nodes.names);
      const attributes = (published && request.inherit?.(published)) ?? request.attributes;
      const own = new KubeLease(options, node, { key: leaseKey(node), subnet, attributes });
      if (!await own.#publish({ signal })) {
        throw new StoreError("unavailable", `node "${name}" was made anew in this moment`);
      }
      log.info(`Lease is the node's ${formatSubnet(subnet)}`, { node: name });
      return own;
    };
    return await patiently("lease a subnet", attempt, {
      log,
      signal,
      ...(request.onWaiting ? { onStatus: request.onWaiting } : {}),
      // Rights may be given while we wait, so nobody need restart us for that.
      isFatal: (error) => !(error instanceof StoreError) || error.reason === "invalid",
      initialMs: 200,
      maxMs: 3_000,
    });
  }

  publish(attributes: LeaseAttributes): void {
    this.lease.set({ ...this.lease.value, attributes });
    this.#wakeup.wake();
  }

  redraw(): void {} // others assign subnets

  setReady(isReady: boolean): void {
    this.#isReady = isReady;
    this.#wakeup.wake();
  }

  /** Takes note of the node as the watch sees it, which may be somewhat late. */
  observe(node: KubeNode | undefined): void {
    this.#node = node;
    this.#wakeup.wake();
  }

  async run({ signal }: CallOptions): Promise<never> {
    const backoff = new Backoff({ initialMs: 500, maxMs: 30_000 });
    while (true) {
      let waitMs = Infinity;
      try {
        await this.#look({ signal });
        this.#writing.working();
        backoff.reset();
        this.#say(undefined);
      } catch (error) {
        signal.throwIfAborted();
        this.#say(error);
        waitMs = backoff.next();
      }
      await this.#wakeup.sleep(waitMs, { signal });
    }
  }

  /** Does what follows from the node as it is. */
  async #look(options: CallOptions): Promise<void> {
    const node = this.#node;
    const { value: lease } = this.lease;
    const { node: name, log } = this.#options;
    if (node === undefined || node.podCidrs === undefined) {
      const what = node === undefined ? "is deleted" : "has no pod CIDR";
      this.#lose(`node "${name}" ${what}; the subnet stays as it is until there is another`);
      return;
    }
    if (leaseKey(node) !== lease.key) {
      const subnet = subnetIn(node, this.#options);
      this.#lines.write("warn", `Node was made anew: its subnet is ${formatSubnet(subnet)} now`, {
        before: formatSubnet(lease.subnet),
      });
      this.lease.set({ ...lease, key: leaseKey(node), subnet });
    }
    if (!this.state.value.held) log.info("Lease is held again", { node: name });
    if (!await this.#publish(options)) return; // it is another one by now: the watch tells
    const { setsCondition, nodes } = this.#options;
    if (!this.#isReady || !setsCondition || this.#toldUid === node.uid) return;
    if (await nodes.setNetworkAvailable(node, options)) this.#toldUid = node.uid;
  }

  /** Writes what is not written yet. Returns whether the node is still the same one. */
  async #publish(options: CallOptions): Promise<boolean> {
    const { nodes } = this.#options;
    const node = this.#node!;
    const { attributes } = this.lease.value;
    const wanted = encodeAnnotations(attributes, nodes.names, node.annotations);
    const missing = missingAnnotations(wanted, node.annotations);
    if (missing === undefined) return true;
    // Another may write them over as often as it likes.
    const sinceMs = performance.now() - this.#wroteAt;
    if (sinceMs < REWRITE_MS) await delay(REWRITE_MS - sinceMs, options);
    this.#wroteAt = performance.now();
    const written = await nodes.annotate(node, missing, options);
    // The watch may have told of something newer meanwhile.
    if (written !== undefined && this.#node === node) this.#node = written;
    return written !== undefined;
  }

  #lose(message: string): void {
    if (!this.state.value.held && this.state.value.message === message) return;
    this.state.set({ held: false, loss: "gone", message });
    this.#lines.write("warn", `Lease is not held: ${message}`, {});
  }

  #say(error: unknown): void {
    if (error === undefined) {
      const isHeld = this.#node?.podCidrs !== undefined;
      const isAsBefore = this.state.value.held && this.state.value.trouble === undefined;
      if (isHeld && !isAsBefore) this.state.set({ held: true, expiresAt: undefined });
      return;
    }
    const isUnfit = error instanceof StoreError && error.reason === "invalid" &&
      error.name === "StoreError";
    if (isUnfit) return this.#lose(error.message);
    this.state.set({ held: true, expiresAt: undefined, trouble: this.#writing.failing(error) });
  }
}

/** @throws {StoreError} `invalid`, if the node's CIDRs are not of this network. */
function subnetIn(node: KubeNode, { network }: Pick<KubeLeaseOptions, "network">) {
  try {
    return ownSubnet(node, network);
  } catch (error) {
    throw new StoreError("invalid", (error as Error).message);
  }
}
