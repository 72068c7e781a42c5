/**
 * What of others is in the executable and in the image: npm packages, the runtime, Debian packages;
 * with their licences, and as a software bill of materials.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import type { UnpackedPackage } from "../debian/packages.ts";
import { deno, ROOT } from "../run.ts";
import type { Target } from "../target.ts";
import { TARGETS } from "../target.ts";

/** Something that others have made. */
export interface Component {
  readonly name: string;
  readonly version: string;
  /** Package URL, which says where it is from. */
  readonly purl: string;
  /** As SPDX calls it, or as its author does. */
  readonly license: string;
  /** The whole text of its licence. */
  readonly licenseText: string;
  readonly hash?: { readonly alg: "SHA-256" | "SHA-512"; readonly content: string };
}

/** Packages that have types alone. */
const TYPES_ONLY = /^(?:@types\/|undici-types@)/;

/** The npm packages that the program imports, and those that they need. */
export async function npmComponents(): Promise<Component[]> {
  const { modules, npmPackages } = JSON.parse(
    await deno(["info", "--json", join(ROOT, "main.ts")]),
  );
  const lock = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.lock")));
  const keys = new Set<string>(
    modules.flatMap(({ npmPackage }: { npmPackage?: string }) => npmPackage ?? []),
  );
  for (const key of keys) {
    for (const needed of npmPackages[key].dependencies) {
      if (!TYPES_ONLY.test(needed)) keys.add(needed);
    }
  }
  return [...keys].sort().map((key): Component => {
    const { name, version, localPath } = npmPackages[key];
    const { license, licenses } = JSON.parse(
      Deno.readTextFileSync(join(localPath, "package.json")),
    );
    const integrity: string | undefined = lock.npm[key]?.integrity;
    const [, base64] = /^sha512-(.*)$/.exec(integrity ?? "") ?? [];
    return {
      name,
      version,
      purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      license: license?.type ?? license ?? licenses?.[0]?.type ?? "unknown",
      licenseText: licenseFiles(localPath),
      ...(base64 === undefined ? {} : {
        hash: { alg: "SHA-512", content: Uint8Array.fromBase64(base64).toHex() },
      }),
    };
  });
}

function licenseFiles(directory: string): string {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort()
    .filter((name) => /^(?:licen[cs]e|copying|notice)/i.test(name))
    .map((name) => Deno.readTextFileSync(join(directory, name)).trim()).join("\n\n");
}

/** Packages of a release of Debian, whose licences are in their copyright files. */
export function debianComponents(
  packages: readonly UnpackedPackage[],
  release: 11 | 12,
  target: Target,
): Component[] {
  return packages.map(({ name, version, sha256, path, entries }) => {
    const copyright = entries.find(({ path }) => basename(path) === "copyright");
    const architecture = path.endsWith("_all.deb") ? "all" : TARGETS[target].debian;
    const query = `arch=${architecture}&distro=debian-${release}`;
    return {
      name,
      version,
      purl: `pkg:deb/debian/${name}@${encodeURIComponent(version)}?${query}`,
      license: "see the text",
      licenseText: copyright?.kind === "file"
        ? new TextDecoder().decode(copyright.bytes).trim()
        : "",
      hash: { alg: "SHA-256", content: sha256 },
    };
  });
}

/** The runtime in the executable, by the version that it names in its user agent. */
export function runtimeComponent(version: string): Component {
  return {
    name: "deno",
    version,
    purl: `pkg:github/denoland/deno@v${version}`,
    license: "MIT",
    licenseText: `Copyright 2018-2026 the Deno authors\n\n${MIT}`,
  };
}

/** The licences of all components as one text. */
export function thirdPartyLicenses(components: readonly Component[]): string {
  const parts = components.map(({ name, version, license, licenseText }) =>
    `${"=".repeat(80)}\n${name} ${version} (${license})\n${"=".repeat(80)}\n\n` +
    `${licenseText || "No text comes with it; its package names the licence above."}\n`
  );
  return [INTRODUCTION, ...parts].join("\n");
}

/** A bill of materials for `name`, as CycloneDX 1.5. */
export function softwareBill(
  { name, version, epoch, components }: {
    readonly name: string;
    readonly version: string;
    readonly epoch: number;
    readonly components: readonly Component[];
  },
): string {
  const content = {
    version: 1,
    metadata: {
      timestamp: new Date(epoch * 1_000).toISOString(),
      component: {
        ...{ "type": "application", "bom-ref": name, name, version },
        licenses: [{ license: { id: "Apache-2.0" } }],
      },
    },
    components: components.map(({ name, version, purl, license, hash }) => ({
      ...{ "type": "library", "bom-ref": purl, name, version, purl },
      ...(license === "see the text" ? {} : { licenses: [licenseChoice(license)] }),
      ...(hash === undefined ? {} : { hashes: [hash] }),
    })),
    dependencies: [{ ref: name, dependsOn: components.map(({ purl }) => purl) }],
  };
  // Of the content, so that it is the same for the same content (RFC 9562, version 8).
  const hex = createHash("sha256").update(JSON.stringify(content)).digest("hex");
  const uuid = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
  const bill = {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    serialNumber: `urn:uuid:${uuid}`,
    ...content,
  };
  return `${JSON.stringify(bill, undefined, 2)}\n`;
}

function licenseChoice(license: string) {
  if (/ (?:OR|AND|WITH) /.test(license)) return { expression: license };
  return { license: /^[\w.+-]+$/.test(license) ? { id: license } : { name: license } };
}

const INTRODUCTION =
  `flanneld is under the Apache License 2.0, see LICENSE. What follows is in it as well.

libnl is under the LGPL 2.1. It is Debian's, unchanged, loaded dynamically, and only where the
system has none of its own: install the system's libnl to replace it. Its source is Debian's source
package libnl3 of that version. Deno carries V8, ICU and other parts, whose licences are at
https://github.com/denoland/deno.
`;

const MIT =
  `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;
