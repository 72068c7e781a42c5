/**
 * The packet path of backend `udp` from one run to the next. A service manager's store may keep its
 * descriptors open; without one, packets are lost from the end of one process until the next has a
 * path again. So each run keeps a record of what its path does, and the next one carries on from
 * that before it knows the store, as the kernel does with routes of other backends. What has changed
 * meanwhile is put right by the first round.
 *
 * @module
 */
import { UDP_LINK_NAME } from "../../backends/mod.ts";
import { FdStore } from "../../service_manager/fd_store.ts";
import {
  encodePathRecord,
  parsePathRecord,
  type PathRecord,
  type PathSettings,
  sameSettings,
} from "../../dataplane/path_record.ts";
import { describeError } from "../../errors.ts";
import { removeFile, writeFileAtomically } from "../../host/atomic_file.ts";
import type { Logger } from "../../log.ts";
import { addressBits, InterfaceAddress } from "../../net/mod.ts";
import { Reconciler } from "../../reconcile/reconciler.ts";
import { Desired } from "../../state/desired.ts";
import { Outage } from "../../status/problems.ts";
import type { TunnelPath } from "./tunnel_path.ts";

/** What the last run left of its packet path. Disposing closes whatever nobody took. */
export class FormerPath implements AsyncDisposable {
  readonly fdStore: FdStore;
  readonly record: PathRecordFile;
  readonly #log: Logger;
  #path: TunnelPath | undefined;
  #taken = false;

  /**
   * @param environment Names the service manager's store; see {@linkcode FdStore}.
   * @param subnetFile The record lies beside it.
   */
  constructor(
    environment: Readonly<Record<string, string | undefined>>,
    subnetFile: string,
    log: Logger,
  ) {
    this.#log = log;
    this.fdStore = new FdStore(environment, Deno.pid);
    this.record = new PathRecordFile(pathRecordFile(subnetFile), log);
  }

  /**
   * Carries packets on as the last run did, if its device and addresses are still there. What keeps
   * it from that is no failure: the path is opened later, as at a first start.
   */
  async resume({ signal }: { signal: AbortSignal }): Promise<void> {
    const record = await this.record.read();
    if (record === undefined || !isStillHere(record)) return;
    // Only udp pays for the packet path.
    const { TunnelPath } = await import("./tunnel_path.ts");
    let path: TunnelPath | undefined;
    try {
      path = new TunnelPath(record.settings, this.fdStore, this.#log);
      const { mtuBytes, ipv4, ipv6 } = record;
      const own = [ipv4, ipv6].filter((address) => address !== undefined);
      const state = Desired.of({
        links: [{ name: UDP_LINK_NAME, kind: "tun", mtuBytes }],
        addresses: own.map((address) => ({
          link: UDP_LINK_NAME,
          address: new InterfaceAddress(address, addressBits(address.family)),
        })),
        udpSockets: record.sockets,
        forwarding: record.forwarding,
      });
      const reconciler = new Reconciler({
        name: "packet path of the last run",
        stages: [...path.stagesBefore(() => state), ...path.stagesAfter(() => state)],
        resyncMs: Infinity,
        log: this.#log,
      });
      const { inSync } = await reconciler.round({ signal });
      if (!inSync) return;
      this.#path = path;
      path = undefined;
      this.#log.info("Carrying packets on as the last run did, until the leases are known");
    } catch (error) {
      signal.throwIfAborted();
      this.#log.debug("Cannot carry packets on yet", { error: describeError(error) });
    } finally {
      await path?.surrender();
    }
  }

  /** The path that carries packets, if it is one of `settings`; else it ends. */
  async take(settings: PathSettings): Promise<TunnelPath | undefined> {
    const path = this.#path;
    this.#path = undefined;
    this.#taken = true;
    if (path === undefined || sameSettings(path.settings, settings)) return path;
    await path.surrender();
    return undefined;
  }

  /** Ends what the last run left, unless it was taken: this run has no packet path. */
  async discardUntaken(): Promise<void> {
    if (this.#taken) return;
    await this.#path?.surrender();
    this.#path = undefined;
    // While descriptors are stored, their port stays taken.
    this.fdStore.discardRest();
    await this.record.remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#path?.[Symbol.asyncDispose]();
    this.#path = undefined;
    await this.record[Symbol.asyncDispose]();
    this.fdStore[Symbol.dispose]();
  }
}

/** Where the record of the daemon with this subnet file lies. */
export function pathRecordFile(subnetFile: string): string {
  return `${subnetFile}.udp`;
}

/** Whether device and addresses of the record are there; after a reboot the device is not. */
function isStillHere({ sockets }: PathRecord): boolean {
  const interfaces = Deno.networkInterfaces();
  const addresses = new Set(interfaces.map(({ address }) => address));
  return interfaces.some(({ name }) => name === UDP_LINK_NAME) &&
    sockets.every(({ address }) => addresses.has(address.toString()));
}

/** Peers come and go; the record need not follow each of them. */
const WRITE_AFTER_MS = 5_000;
/** When a record that could not be written is tried again. */
const RETRY_MS = 30_000;

/** 10,000 peers take half a megabyte. */
const MAX_BYTES = 8 << 20;

/** The record on the disk. That it cannot be written or read cuts nothing off. */
export class PathRecordFile implements AsyncDisposable {
  readonly #file: string;
  readonly #reporter: Outage;
  readonly #delays: { readonly writeAfterMs: number; readonly retryMs: number };
  #due: (() => PathRecord) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The last write, which has to be over before the next one begins. */
  #writing = Promise.resolve();

  constructor(
    file: string,
    log: Logger,
    delays = { writeAfterMs: WRITE_AFTER_MS, retryMs: RETRY_MS },
  ) {
    this.#file = file;
    this.#delays = delays;
    this.#reporter = new Outage(log, {
      code: "file-not-written",
      object: file,
      failed: `Cannot write ${file}, so a restart will cut traffic for longer`,
      recovered: `Could write ${file}`,
    });
  }

  /** The record of the last run, if there is one that nobody but this user can have written. */
  async read(): Promise<PathRecord | undefined> {
    try {
      using file = await Deno.open(this.#file, { read: true });
      const { isFile, size, uid, mode } = await file.stat();
      if (!isFile || size > MAX_BYTES || uid !== Deno.uid() || ((mode ?? 0) & 0o022) !== 0) {
        return undefined;
      }
      return parsePathRecord(await new Response(file.readable).text());
    } catch {
      return undefined;
    }
  }

  /** Has what `record` makes by then written soon, in the place of what was there. */
  note(record: () => PathRecord): void {
    this.#due = record;
    this.#writeAfter(this.#delays.writeAfterMs);
  }

  /** Removes the record: there is no path to carry on with. */
  async remove(): Promise<void> {
    this.#due = undefined;
    await this.#writing;
    await removeFile(this.#file).catch(() => {});
  }

  /** Writes what is due. */
  flush(): Promise<void> {
    this.#stopTimer();
    this.#writing = this.#writing.then(() => this.#writeDue());
    return this.#writing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush();
    this.#stopTimer();
  }

  #writeAfter(delayMs: number): void {
    this.#timer ??= setTimeout(() => this.flush(), delayMs);
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  async #writeDue(): Promise<void> {
    const record = this.#due?.();
    this.#due = undefined;
    if (record === undefined) return;
    try {
      await writeFileAtomically(this.#file, encodePathRecord(record), { mode: 0o600 });
      this.#reporter.working();
    } catch (error) {
      this.#reporter.failing(error);
      // What lies there is of an earlier time: the next run would carry on with that.
      this.#due ??= () => record;
      this.#writeAfter(this.#delays.retryMs);
    }
  }
}
