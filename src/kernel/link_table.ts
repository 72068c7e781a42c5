import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { OperatorError } from "../errors.ts";
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import type { LinkSpec } from "../state/mod.ts";
import { applyChanges, GONE, resolving, type Step } from "./apply_changes.ts";
import type { OwnedLinksOptions } from "./link_entry_table.ts";
import { LinkIndex } from "./links.ts";
import type { Link, LinkChange, Netlink, NewLink } from "./netlink.ts";

/** A link as found. */
interface ActualLink extends LinkSpec {
  readonly kernel: Link;
  /** The largest MTU that the kernel allows it. */
  readonly maxMtuBytes?: number;
}

/** Bytes that VXLAN takes of the underlay's MTU, by its family (VXLAN_HEADROOM, net/vxlan.h). */
const VXLAN_HEADROOM_BYTES = { 4: 50, 6: 70 } as const;

/**
 * The virtual links that flanneld owns, and every other link, since it may have a name that we
 * want. Links are set up when made, and outlive the process.
 */
export function createLinkTable(netlink: Netlink, options: OwnedLinksOptions): Table<LinkSpec> {
  return new LinkTable(netlink, options);
}

/**
 * The MTU that `desired` gets: the kernel silently cuts a new VXLAN device's to what the underlay
 * leaves, and refuses a larger one later (vxlan_config_apply).
 */
function allowedMtu(desired: LinkSpec, { maxMtuBytes }: ActualLink): number {
  return Math.min(desired.mtuBytes, maxMtuBytes ?? Infinity);
}

/** What differs, apart from the name. The first group can be changed in place. */
function differences(
  desired: LinkSpec,
  actual: ActualLink,
): { inPlace: string[]; fixed: string[] } {
  const { kernel } = actual;
  const inPlace: string[] = [];
  const fixed: string[] = [];
  if (allowedMtu(desired, actual) !== actual.mtuBytes) inPlace.push("mtu");
  if (desired.mac && !(actual.mac && desired.mac.equals(actual.mac))) inPlace.push("mac");
  if (!kernel.up) inPlace.push("up");
  if (desired.kind !== kernel.kind) fixed.push("kind");
  if (desired.vxlan) {
    const found = actual.vxlan;
    if (desired.vxlan.learning !== found?.learning) inPlace.push("learning");
    for (const field of ["vni", "port", "underlay", "gbp"] as const) {
      if (desired.vxlan[field] !== found?.[field]) fixed.push(field);
    }
    if (!found || !desired.vxlan.local.equals(found.local)) fixed.push("local");
    if (kernel.vxlan?.remote) fixed.push("remote");
    fixed.push(...(kernel.vxlan?.otherModes ?? []));
  }
  return { inPlace, fixed };
}

function linkKind({ ownsLink }: OwnedLinksOptions): Kind<LinkSpec> {
  return {
    name: "link",
    key: (spec) => spec.name,
    equal(desired, actual) {
      const { inPlace, fixed } = differences(desired, actual as ActualLink);
      return inPlace.length === 0 && fixed.length === 0;
    },
    owns: (actual) => ownsLink(actual.name),
    format({ name, kind, mtuBytes, mac, vxlan }) {
      const words = [name, "mtu", String(mtuBytes)];
      if (mac) words.push("address", mac.toString());
      words.push("type", kind);
      if (vxlan) {
        words.push("id", String(vxlan.vni), "dev", vxlan.underlay, "local", String(vxlan.local));
        words.push("dstport", String(vxlan.port), vxlan.learning ? "learning" : "nolearning");
        if (vxlan.gbp) words.push("gbp");
      }
      return words.join(" ");
    },
  };
}

class LinkTable implements Table<LinkSpec> {
  readonly kind: Kind<LinkSpec>;
  readonly #netlink: Netlink;
  readonly #options: OwnedLinksOptions;

  constructor(netlink: Netlink, options: OwnedLinksOptions) {
    this.#netlink = netlink;
    this.#options = options;
    this.kind = linkKind(options);
  }

  async list(options: { signal: AbortSignal }): Promise<readonly LinkSpec[]> {
    const index = await LinkIndex.read(this.#netlink, options);
    return index.links.map((link) => toActual(link, index));
  }

  async apply(
    changes: readonly Change<LinkSpec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<LinkSpec>[]> {
    if (changes.length === 0) return [];
    const links = await LinkIndex.read(this.#netlink, options);
    const failed = await applyChanges(
      this.#netlink,
      changes,
      (change) => this.#plan(change, links),
      options,
    );
    const existing = failed.some(({ error }) => hasCode(error, "EEXIST"));
    const now = existing
      ? new Map((await this.list(options)).map((each) => [each.name, each]))
      : undefined;
    return failed.flatMap(({ change, error }) => {
      if (change.op !== "remove") {
        const found = hasCode(error, "EEXIST") ? now?.get(change.desired.name) : undefined;
        if (found && this.kind.equal(change.desired, found)) return [];
        if (hasCode(error, "EOPNOTSUPP") && error.message.startsWith("Cannot add link")) {
          return [{ change, error: unsupportedKind(change.desired, error) }];
        }
      }
      return [{ change, error }];
    });
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
        const { inPlace, fixed } = differences(desired, actual);
        if (fixed.length > 0) return [removal(actual), this.#add(desired, links)];
        const { index, name } = actual.kernel;
        const set = (value: Omit<LinkChange, "index" | "name">): Step => ({
          request: { verb: "set", noun: "link", value: { index, name, ...value } },
        });
        const steps: Step[] = [];
        if (inPlace.some((field) => field !== "learning")) {
          steps.push(set({
            ...(inPlace.includes("mtu") ? { mtuBytes: allowedMtu(desired, actual) } : {}),
            ...(desired.mac && inPlace.includes("mac") ? { mac: desired.mac } : {}),
            ...(inPlace.includes("up") ? { up: true } : {}),
          }));
        }
        // On its own: the kernel refuses an MTU beside VXLAN parameters (vxlan_nl2conf).
        if (desired.vxlan && inPlace.includes("learning")) {
          steps.push(set({ learning: desired.vxlan.learning }));
        }
        return steps;
      }
    }
  }

  #add(desired: LinkSpec, links: LinkIndex): Step {
    const value = resolving(`add link ${desired.name}`, (): NewLink => {
      const { name, kind, mtuBytes, mac, vxlan } = desired;
      if (!this.#options.ownsLink(name)) throw new Error("the name is not flanneld's");
      if (kind === "tun") throw new Error("the process that reads a TUN device makes it");
      if ((kind === "vxlan") !== (vxlan !== undefined)) {
        throw new Error("VXLAN parameters belong to links of kind vxlan, and to each of them");
      }
      return {
        name,
        kind,
        mtuBytes,
        ...(mac ? { mac } : {}),
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
  const { vxlan } = link;
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
          // An underlay that was made anew has another index: it is not the link we meant.
          underlay: vxlan.underlayIndex === undefined ? "" : index.nameOf(vxlan.underlayIndex),
          local: vxlan.local,
          learning: vxlan.learning,
          gbp: vxlan.gbp,
        },
      }
      : {}),
    kernel: link,
    ...(maxMtuBytes === undefined ? {} : { maxMtuBytes }),
  };
}
