/** The Table of flanneld's links: VXLAN devices and IPIP tunnels. @module */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { OperatorError } from "../errors.ts";
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import type { LinkSpec } from "../state/mod.ts";
import { applyChanges, type FailedStep, GONE, resolving, type Step } from "./apply_changes.ts";
import { describeVxlanHolder } from "./vxlan_holder.ts";
import { LinkIndex } from "./links.ts";
import type { Link, LinkChange, Netlink, NewLink } from "./netlink.ts";

/** An actual link. */
interface ActualLink extends LinkSpec {
  readonly kernel: Link;
  /** The largest MTU that the kernel allows it. */
  readonly maxMtuBytes?: number;
}

/** Bytes that VXLAN takes of the underlay's MTU, by its family (VXLAN_HEADROOM, net/vxlan.h). */
const VXLAN_HEADROOM_BYTES = { 4: 50, 6: 70 } as const;

export interface LinkTableOptions {
  /** Whether a link of this name and kind is this daemon's, unless its alias says otherwise. */
  readonly ownsLink: (name: string, kind: string) => boolean;
  /**
   * Written into each own link's alias, so that a later run recognises them under any
   * name, and several daemons on one host leave each other's alone. @default none
   */
  readonly alias?: string;
  /** Called with all links whenever they are listed. */
  readonly onList?: (links: readonly Link[]) => void;
}

/** How the aliases of all daemons' links begin. */
export const LINK_ALIAS_PREFIX = "flanneld ";

/**
 * The virtual links that flanneld owns, and all others, since one may have a name that we need.
 * Links are created up, and outlive the process.
 */
export function createLinkTable(netlink: Netlink, options: LinkTableOptions): Table<LinkSpec> {
  return new LinkTable(netlink, options);
}

/**
 * The MTU that `desired` gets: the kernel silently cuts a new VXLAN device's to what the underlay
 * leaves, and refuses a larger one later (vxlan_config_apply).
 */
function allowedMtu(desired: LinkSpec, { maxMtuBytes }: ActualLink): number {
  return Math.min(desired.mtuBytes, maxMtuBytes ?? Infinity);
}

/** Properties that can change while the link carries packets. */
type Changeable = "mtu" | "mac" | "up" | "alias" | "learning" | "local" | "underlay";

/** The properties that differ, apart from the name. */
interface Differences {
  readonly inPlace: ReadonlySet<Changeable>;
  /** Properties that only a new link can have. */
  readonly fixed: readonly string[];
}

function differences(
  desired: LinkSpec,
  actual: ActualLink,
  alias: string | undefined,
): Differences {
  const { kernel } = actual;
  const inPlace = new Set<Changeable>();
  const fixed: string[] = [];
  if (allowedMtu(desired, actual) !== actual.mtuBytes) inPlace.add("mtu");
  if (desired.mac && !(actual.mac && desired.mac.equals(actual.mac))) inPlace.add("mac");
  if (!kernel.up) inPlace.add("up");
  if (alias !== undefined && kernel.alias !== alias) inPlace.add("alias");
  if (desired.kind !== kernel.kind) fixed.push("kind");
  if (desired.vxlan) {
    const found = actual.vxlan;
    const { local } = desired.vxlan;
    if (desired.vxlan.learning !== found?.learning) inPlace.add("learning");
    if (desired.vxlan.underlay !== found?.underlay) inPlace.add("underlay");
    if (!found || local.family !== found.local.family) fixed.push("local");
    else if (!local.equals(found.local)) inPlace.add("local");
    for (const field of ["vni", "port", "gbp"] as const) {
      if (desired.vxlan[field] !== found?.[field]) fixed.push(field);
    }
    if (kernel.vxlan?.remote) fixed.push("remote");
    fixed.push(...(kernel.vxlan?.otherModes ?? []));
  }
  if (desired.ipip) {
    if (!actual.ipip?.local.equals(desired.ipip.local)) fixed.push("local");
    if (kernel.ipip?.remote) fixed.push("remote");
  }
  return { inPlace, fixed };
}

function linkKind({ ownsLink, alias }: LinkTableOptions): Kind<LinkSpec> {
  return {
    id: "link",
    name: "link",
    key: (spec) => spec.name,
    equal(desired, actual) {
      const { inPlace, fixed } = differences(desired, actual as ActualLink, alias);
      return inPlace.size === 0 && fixed.length === 0;
    },
    owns(actual) {
      const { kernel } = actual as ActualLink;
      if (alias !== undefined && kernel.alias?.startsWith(LINK_ALIAS_PREFIX)) {
        return kernel.alias === alias;
      }
      return ownsLink(actual.name, kernel.kind ?? "");
    },
    format({ name, kind, mtuBytes, mac, vxlan, ipip, ...rest }) {
      const words = [name, "mtu", String(mtuBytes)];
      if (mac) words.push("address", mac.toString());
      words.push("type", kind);
      if (ipip) words.push("local", String(ipip.local));
      if (vxlan) {
        words.push("id", String(vxlan.vni), "dev", vxlan.underlay, "local", String(vxlan.local));
        words.push("dstport", String(vxlan.port), vxlan.learning ? "learning" : "nolearning");
        if (vxlan.gbp) words.push("gbp");
      }
      const found = "kernel" in rest ? (rest.kernel as Link).alias : undefined;
      if (found !== undefined && found !== alias) words.push("alias", JSON.stringify(found));
      return words.join(" ");
    },
    adviseConflict(actual) {
      const { kernel: { name, alias } } = actual as ActualLink;
      return (alias?.startsWith(LINK_ALIAS_PREFIX)
        ? "it belongs to another flanneld on this host: give one of the two another VNI, or, if " +
          "the other is no longer used, "
        : "") + `remove it with "ip link delete ${name}"`;
    },
  };
}

class LinkTable implements Table<LinkSpec> {
  readonly kind: Kind<LinkSpec>;
  readonly #netlink: Netlink;
  readonly #options: LinkTableOptions;

  constructor(netlink: Netlink, options: LinkTableOptions) {
    this.#netlink = netlink;
    this.#options = options;
    this.kind = linkKind(options);
  }

  async list(options: { signal: AbortSignal }): Promise<readonly LinkSpec[]> {
    const index = await LinkIndex.read(this.#netlink, options);
    this.#options.onList?.(index.links);
    return index.links.map((link) => toActual(link, index));
  }

  async apply(
    changes: readonly Change<LinkSpec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<LinkSpec>[]> {
    if (changes.length === 0) return [];
    const links = await LinkIndex.read(this.#netlink, options);
    let failed = await applyChanges(
      this.#netlink,
      changes,
      (change) => this.#plan(change, links),
      options,
    );
    failed = await this.#makeAnew(failed, options);
    failed = [...failed, ...await this.#finish(changes, failed, options)];
    return await Promise.all(
      failed.map(async (failure) => ({
        change: failure.change,
        error: await this.#explain(failure, options),
      })),
    );
  }

  /** `error` with its remedy, where one is known. */
  async #explain(
    { change, error, verb }: FailedStep<LinkSpec>,
    options: { signal: AbortSignal },
  ): Promise<Error> {
    if (change.op === "remove") return error;
    const { desired } = change;
    if (verb === "add" && hasCode(error, "EOPNOTSUPP")) return unsupportedKind(desired, error);
    for (const code of ["EEXIST", "EADDRINUSE"] as const) {
      if (!hasCode(error, code)) continue;
      const { links } = await LinkIndex.read(this.#netlink, options);
      const holder = await describeVxlanHolder(desired, code, links, options);
      if (holder) {
        return new OperatorError(`Cannot add link ${desired.name}: ${holder}`, { cause: error });
      }
    }
    return error;
  }

  /** Recreates a link that the kernel refuses to change in place. */
  async #makeAnew(
    failed: readonly FailedStep<LinkSpec>[],
    options: { signal: AbortSignal },
  ): Promise<FailedStep<LinkSpec>[]> {
    const isRefused = ({ change, error, verb }: FailedStep<LinkSpec>) =>
      change.op === "replace" && verb === "set" &&
      (hasCode(error, "EOPNOTSUPP") || hasCode(error, "EINVAL"));
    const refused = failed.filter(isRefused);
    if (refused.length === 0) return [...failed];
    const links = await LinkIndex.read(this.#netlink, options);
    const again = await applyChanges(
      this.#netlink,
      refused.map(({ change }) => change),
      (change) =>
        change.op === "replace"
          ? [removal(change.actual as ActualLink), this.#add(change.desired, links)]
          : [],
      options,
    );
    return [...failed.filter((failure) => !isRefused(failure)), ...again];
  }

  /**
   * What a new link still lacks: the kernel ignores an alias in the request that creates it. If
   * another process has created the right link meanwhile, that is no failure.
   */
  async #finish(
    changes: readonly Change<LinkSpec>[],
    failed: FailedStep<LinkSpec>[],
    options: { signal: AbortSignal },
  ): Promise<FailedStep<LinkSpec>[]> {
    const wanted = changes.filter((change) => change.op !== "remove");
    if (wanted.length === 0) return [];
    const now = new Map((await this.list(options)).map((each) => [each.name, each as ActualLink]));
    const failures = new Map(failed.map((failure) => [failure.change, failure]));
    const again: Change<LinkSpec>[] = [];
    for (const change of wanted) {
      const found = now.get(change.desired.name);
      const failure = failures.get(change);
      if (!found || (failure && !hasCode(failure.error, "EEXIST"))) continue;
      if (!this.kind.owns(found)) continue;
      const { fixed } = differences(change.desired, found, this.#options.alias);
      if (fixed.length > 0) continue;
      if (failure) failed.splice(failed.indexOf(failure), 1);
      again.push(change);
    }
    return await applyChanges(
      this.#netlink,
      again,
      (change) =>
        change.op === "remove" ? [] : this.#change(
          change.desired,
          now.get(change.desired.name)!,
          new LinkIndex(
            [...now.values()].map(({ kernel }) => kernel),
          ),
        ),
      options,
    );
  }

  #plan(change: Change<LinkSpec>, links: LinkIndex): readonly Step[] {
    switch (change.op) {
      case "add":
        return [this.#add(change.desired, links)];
      case "remove":
        return [removal(change.actual as ActualLink)];
      case "replace": {
        const { desired } = change;
        const actual = change.actual as ActualLink;
        const { fixed } = differences(desired, actual, this.#options.alias);
        if (fixed.length > 0) return [removal(actual), this.#add(desired, links)];
        return this.#change(desired, actual, links);
      }
    }
  }

  /** The steps that make `actual` what is desired, in place. */
  #change(desired: LinkSpec, actual: ActualLink, links: LinkIndex): readonly Step[] {
    const { alias } = this.#options;
    const { inPlace } = differences(desired, actual, alias);
    const { index, name } = actual.kernel;
    const { vxlan } = desired;
    const set = (value: Omit<LinkChange, "index" | "name">): Step => ({
      request: { verb: "set", noun: "link", value: { index, name, ...value } },
    });
    const steps: Step[] = [];
    // Apart: the kernel refuses an MTU beside VXLAN parameters (vxlan_nl2conf).
    if (vxlan && (["learning", "local", "underlay"] as const).some((each) => inPlace.has(each))) {
      const underlayIndex = resolving(
        () => `set link ${name}`,
        () => links.indexOf(vxlan.underlay),
      );
      steps.push(set({
        vxlan: {
          ...(inPlace.has("learning") ? { learning: vxlan.learning } : {}),
          ...(inPlace.has("local") ? { local: vxlan.local } : {}),
          ...(inPlace.has("underlay") ? { underlayIndex } : {}),
        },
      }));
    }
    if ((["mtu", "mac", "up", "alias"] as const).some((each) => inPlace.has(each))) {
      steps.push(set({
        ...(inPlace.has("mtu") ? { mtuBytes: allowedMtu(desired, actual) } : {}),
        ...(desired.mac && inPlace.has("mac") ? { mac: desired.mac } : {}),
        ...(inPlace.has("up") ? { up: true } : {}),
        ...(alias !== undefined && inPlace.has("alias") ? { alias } : {}),
      }));
    }
    return steps;
  }

  #add(desired: LinkSpec, links: LinkIndex): Step {
    const value = resolving(() => `add link ${desired.name}`, (): NewLink => {
      const { name, kind, mtuBytes, mac, vxlan, ipip } = desired;
      if (!this.#options.ownsLink(name, kind)) throw new Error("the name is not flanneld's");
      if (kind === "tun") throw new Error("the process that reads a TUN device makes it");
      if ((kind === "vxlan") !== (vxlan !== undefined)) {
        throw new Error("VXLAN parameters belong to links of kind vxlan, and to each of them");
      }
      if ((kind === "ipip") !== (ipip !== undefined)) {
        throw new Error("IPIP parameters belong to links of kind ipip, and to each of them");
      }
      return {
        name,
        kind,
        mtuBytes,
        ...(mac ? { mac } : {}),
        ...(ipip ? { ipip } : {}),
        ...(vxlan
          ? {
            vxlan: {
              vni: vxlan.vni,
              port: vxlan.port,
              underlayIndex: links.indexOf(vxlan.underlay),
              local: vxlan.local,
              learning: vxlan.learning,
              gbp: vxlan.gbp,
            },
          }
          : {}),
      };
    });
    return { request: { verb: "add", noun: "link", value } };
  }
}

function removal({ kernel: { index, name } }: ActualLink): Step {
  return { request: { verb: "remove", noun: "link", value: { index, name } }, accept: GONE };
}

function hasCode(error: Error, code: string): boolean {
  return error instanceof NetlinkError && error.code === code;
}

function unsupportedKind({ name, kind }: LinkSpec, cause: Error): OperatorError {
  return new OperatorError(
    `Cannot add link ${name}: this kernel has no support for ${kind} links; load it with ` +
      `"modprobe ${kind}", or install the package with the kernel's further modules ` +
      `(linux-modules-extra-… on Ubuntu, kernel-modules-extra on Fedora)`,
    { cause },
  );
}

function toActual(link: Link, index: LinkIndex): ActualLink {
  const { vxlan, ipip } = link;
  const underlay = vxlan?.underlayIndex === undefined ? undefined : index.at(vxlan.underlayIndex);
  const maxMtuBytes = vxlan?.local && underlay &&
    underlay.mtuBytes - VXLAN_HEADROOM_BYTES[vxlan.local.family];
  return {
    name: link.name,
    // Foreign links are of any kind; this one is only compared and printed.
    kind: (link.kind ?? "device") as LinkSpec["kind"],
    mtuBytes: link.mtuBytes,
    ...(link.mac ? { mac: link.mac } : {}),
    ...(vxlan?.local
      ? {
        vxlan: {
          vni: vxlan.vni,
          port: vxlan.port,
          // An underlay that was recreated has a new index: it is not the link we meant.
          underlay: vxlan.underlayIndex === undefined ? "" : index.nameOf(vxlan.underlayIndex),
          local: vxlan.local,
          learning: vxlan.learning,
          gbp: vxlan.gbp,
        },
      }
      : {}),
    ...(ipip?.local ? { ipip: { local: ipip.local } } : {}),
    kernel: link,
    ...(maxMtuBytes === undefined ? {} : { maxMtuBytes }),
  };
}
