/**
 * The packages for Debian's and RPM's distributions: what they depend on, and what is done when they
 * are installed and removed.
 *
 * @module
 */
import { versionNeeds } from "../elf.ts";
import { TARGETS } from "../target.ts";
import type { Build } from "./build.ts";
import { installedEntries, type Parts } from "./contents.ts";
import { writeDeb } from "./deb.ts";
import { type Bytes, directory } from "./files.ts";
import { RPM_FILE, writeRpm } from "./rpm.ts";

const SUMMARY = "per-host daemon of the flannel network";
const DESCRIPTION = [
  "Leases a subnet to this host, and leads packets between the containers of all hosts: by routes,",
  "VXLAN, IPIP or UDP, or by the route tables of a cloud's VPC. Leases are kept in etcd.",
];

/** A daemon that runs is restarted by an upgrade, without waiting; nothing starts one that does not. */
const RELOAD = "systemctl daemon-reload || true";
const RESTART = "systemctl --no-block try-restart flanneld.service || true";
/** Its routes and rules stay, as after any stop: "flanneld cleanup" removes them. */
const DISABLE = "systemctl --no-reload disable --now flanneld.service || true";

/** The package for Debian, Ubuntu and their like. */
export function debianPackage(build: Build, parts: Parts): Bytes {
  const installed = installedEntries(build, parts, "deb");
  const script = (...lines: string[]) => ["#!/bin/sh", "set -e", ...lines, ""].join("\n");
  return writeDeb({
    control: {
      Package: "flanneld",
      Version: build.version,
      Architecture: TARGETS[build.target].debian,
      Maintainer: "The flanneld authors <flanneld@localhost>",
      // The runtime's libraries; and a program for rules: which one, the network config says.
      Depends: `libc6 (>= ${build.glibc}), libgcc-s1 | libgcc1, iptables | nftables`,
      Suggests: "docker.io | docker-ce, etcd-server",
      Section: "net",
      Priority: "optional",
      Description: [SUMMARY, ...DESCRIPTION].join("\n "),
    },
    conffiles: installed.filter(({ role }) => role === "config").map(({ entry }) =>
      `/${entry.path}`
    ),
    scripts: {
      postinst: script(
        'if [ "$1" = configure ] && [ -d /run/systemd/system ]; then',
        `  ${RELOAD}`,
        `  if [ -n "$2" ]; then ${RESTART}; fi`,
        "fi",
      ),
      prerm: script(
        'if [ "$1" = remove ] && [ -d /run/systemd/system ]; then',
        `  ${DISABLE}`,
        "fi",
      ),
      postrm: script(
        'if [ "$1" = purge ]; then',
        "  rm -f /etc/systemd/system/multi-user.target.wants/flanneld.service",
        "fi",
        `if [ -d /run/systemd/system ]; then ${RELOAD}; fi`,
      ),
    },
    entries: installed.map(({ entry }) => entry),
    epoch: build.epoch,
  });
}

/** The package for Alibaba Cloud Linux, Anolis, Enterprise Linux and their like. */
export function rpmPackage(build: Build, parts: Parts): Bytes {
  const flags = {
    config: RPM_FILE.config | RPM_FILE.noReplace,
    doc: RPM_FILE.doc,
    license: RPM_FILE.license,
  };
  const libraries = new Set(versionNeeds(build.executable).map(({ library }) => library));
  return writeRpm({
    name: "flanneld",
    version: build.version,
    release: "1",
    architecture: build.target,
    summary: SUMMARY,
    description: DESCRIPTION.join("\n"),
    license: "Apache-2.0 AND MIT AND LGPL-2.1-only",
    requires: [
      { name: `libc.so.6(GLIBC_${build.glibc})(64bit)` },
      ...[...libraries].filter((name) => !/^(?:libc\.so|ld-linux)/.test(name)).sort()
        .map((name) => ({ name: `${name}()(64bit)` })),
      { name: "(iptables or nftables)" },
    ],
    scripts: {
      post: `if [ -d /run/systemd/system ]; then ${RELOAD}; fi`,
      preun: `if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then ${DISABLE}; fi`,
      postun:
        `if [ -d /run/systemd/system ]; then ${RELOAD}; if [ "$1" -ge 1 ]; then ${RESTART}; fi; fi`,
    },
    entries: [
      ...installedEntries(build, parts, "rpm").map(({ entry, role }) => (
        role === undefined ? entry : { ...entry, flags: flags[role] }
      )),
      ...["usr/share/flanneld", "usr/share/doc/flanneld", "usr/share/licenses/flanneld"]
        .map((path) => directory(path)),
      ...["docs", "docs/zh-CN"].map((path) => directory(`usr/share/doc/flanneld/${path}`)),
    ],
    epoch: build.epoch,
  });
}
