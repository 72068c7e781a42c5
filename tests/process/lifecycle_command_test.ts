import assert from "node:assert/strict";
import { labTest } from "../lab/mod.ts";
import { runFlanneld } from "./support.ts";

/** Command lines that are refused: arguments, variables, and what each line of stderr has to say. */
const REFUSED: readonly {
  readonly title: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly says: readonly RegExp[];
}[] = [
  {
    title: "an unknown flag, with the nearest name",
    flags: ["--etcd-endpoint=http://10.0.0.5:2379"],
    says: [/Unknown flag --etcd-endpoint; did you mean --etcd-endpoints\?$/],
  },
  {
    title: "an unknown flag that is like no other",
    flags: ["--frobnicate"],
    says: [/Unknown flag --frobnicate; see --help for all flags$/],
  },
  {
    title: "a value of the wrong type",
    flags: ["--iptables-resync=often"],
    says: [/Invalid value "often" for --iptables-resync: it must be a whole number$/],
  },
  {
    title: "a value out of its range",
    flags: ["--subnet-lease-renew-margin", "1440"],
    says: [/"1440" for --subnet-lease-renew-margin: .* from 1 to 1439$/],
  },
  {
    title: "a bad variable, by its own name",
    env: { FLANNELD_HEALTHZ_PORT: "http" },
    says: [/Invalid value "http" for FLANNELD_HEALTHZ_PORT: it must be a whole number$/],
  },
  {
    title: "a leftover after the flags",
    flags: ["--ip-masq", "false"],
    says: [
      /Unexpected argument "false" after --ip-masq: .* as in --ip-masq=false \(upstream reads --ip-masq alone/,
    ],
  },
  {
    title: "an argument that is no flag",
    flags: ["run"],
    says: [/Unexpected argument "run": flanneld takes flags only; without a command it runs$/],
  },
  {
    title: "every fault at once",
    flags: ["--etcd-api=v4", "--iface=eth0:1", "--public-ip=fd00::1"],
    env: { FLANNELD_IP_MASQ: "yes" },
    says: [/FLANNELD_IP_MASQ/, /--etcd-api/, /--iface/, /--public-ip/],
  },
  {
    title: "a user without a password, and never the password itself",
    flags: ["--etcd-password=canary-7d1f"],
    says: [/--etcd-password is given without --etcd-username; give both, or neither$/],
  },
];

for (const { title, flags = [], env = {}, says } of REFUSED) {
  labTest(`the command line refuses ${title}`, async ({ signal }) => {
    const result = await runFlanneld(flags, { signal, env });
    assert.equal(result.code, 2);
    assert.equal(result.stdout, "");
    const lines = result.stderr.trimEnd().split("\n");
    assert.equal(lines.length, says.length, result.stderr);
    for (const line of lines) assert.match(line, /^flanneld: \S/);
    for (const pattern of says) {
      assert.equal(lines.filter((line) => pattern.test(line)).length, 1, result.stderr);
    }
    assert.doesNotMatch(result.stderr, /canary/);
  });
}

labTest("words that print something do so to stdout and exit 0", async ({ signal }) => {
  for (
    const [words, prints] of [
      [["help"], /^Usage: flanneld/m],
      [["version"], /^flanneld \d/],
      [["man"], /^\.TH FLANNELD/m],
      [["completion", "bash"], /^complete -F/m],
    ] as const
  ) {
    const result = await runFlanneld(words, { signal });
    assert.deepEqual([result.code, result.stderr], [0, ""]);
    assert.match(result.stdout, prints);
  }
});

labTest(
  "--check-config exits 0 for a valid config, 1 for another, 2 without one",
  async ({ signal }) => {
    const file = await Deno.makeTempFile();
    try {
      const outcome = async (text: string) => {
        await Deno.writeTextFile(file, text);
        const { code, stdout, stderr } = await runFlanneld([`--check-config=${file}`], { signal });
        return { code, stdout, stderr };
      };
      assert.deepEqual(await outcome('{"Network":"10.24.0.0/16","Backend":{"Type":"vxlan"}}'), {
        code: 0,
        stdout: `${file}: valid: 10.24.0.0/16 in subnets of /24, backend vxlan\n`,
        stderr: "",
      });
      const { code, stdout, stderr } = await outcome(
        '{"Network":"10.24.0.0/16","SubnetLen":"24","Backend":{"Type":"vxlam"}}',
      );
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(
        stderr,
        /^flanneld: \S+ SubnetLen .*\nflanneld: \S+ .* did you mean "vxlan".*\n$/,
      );
      assert.equal((await runFlanneld(["--check-config="], { signal })).code, 2);
    } finally {
      await Deno.remove(file);
    }
  },
);

labTest("--help and --version print to stdout and exit 0", async ({ signal }) => {
  for (const flag of ["--help", "-h", "-help"]) {
    const help = await runFlanneld([flag], { signal });
    assert.deepEqual([help.code, help.stderr], [0, ""]);
    assert.match(help.stdout, /--etcd-endpoints/);
    assert.match(help.stdout, /FLANNELD_/);
    for (const line of help.stdout.split("\n")) assert.ok(line.length <= 100, line);
  }
  for (const flag of ["--version", "-version=true"]) {
    const version = await runFlanneld([flag], { signal });
    assert.deepEqual([version.code, version.stderr], [0, ""]);
    assert.match(version.stdout, /^flanneld \d+\.\d+\.\d+ \(Deno \d+\.\d+\.\d+\)\n$/);
  }
});
