/** A canary in every input, looked for in every output. */
import assert from "node:assert/strict";
import { type Daemon, type Host, labTest, RAM_ROLE } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { askHealth, HEALTH_FLAGS } from "./support.ts";
import {
  brisk,
  callsSince,
  lastWords,
  mark,
  openCloudLab,
  ownCluster,
  together,
} from "./cloud_support.ts";

/** A text that occurs nowhere else. */
function canary(prefix = ""): string {
  return prefix + crypto.randomUUID().replaceAll("-", "") + "+/=x";
}

const PASSWORD = canary();
const KEYS = {
  config: { id: canary("LTAI5tConfig"), secret: canary() },
  env: { id: canary("LTAI5tEnv"), secret: canary() },
  sdk: { id: canary("LTAI5tSdk"), secret: canary() },
};
const WRONG_SECRET = canary();

/** Whatever of a secret may be left after encoding, quoting or cutting. */
function tracesOf(secret: string): string[] {
  const forms = [
    secret,
    encodeURIComponent(secret),
    encodeURIComponent(encodeURIComponent(secret)),
    btoa(secret),
    btoa(`root:${secret}`),
  ];
  // Not from the very beginning: that may be a prefix which all keys have in common.
  const pieces = [8, secret.length >> 1, secret.length - 20]
    .map((from) => secret.slice(from, from + 16));
  return [...forms, ...pieces.filter((piece) => piece.length === 16)];
}

/** Asserts that none of `secrets` is in any of `outputs`. */
function assertHidden(
  secrets: Readonly<Record<string, string>>,
  outputs: Readonly<Record<string, string>>,
): void {
  for (const [where, text] of Object.entries(outputs)) {
    assert.notEqual(text, "", `${where} has something in it`);
    for (const [what, secret] of Object.entries(secrets)) {
      for (const trace of tracesOf(secret)) {
        const at = text.indexOf(trace);
        const around = text.slice(Math.max(0, at - 200), at + 100);
        assert.equal(at, -1, `${what} is in ${where}: … ${around}`);
      }
    }
  }
}

/** Everything that a daemon has let out. */
async function outputsOf(
  host: Host,
  daemon: Daemon,
  options: { signal: AbortSignal },
): Promise<Record<string, string>> {
  const running = daemon.process.ended === undefined;
  return {
    "the log": await Deno.readTextFile(host.logFile),
    "the statuses": daemon.statuses().join("\n"),
    ...(running
      ? {
        "ps": await Deno.readTextFile(`/proc/${daemon.process.pid}/cmdline`),
        "/status": (await askHealth(host, "/status", options)).body,
        "/readyz": (await askHealth(host, "/readyz", options)).body,
        "subnet.env": await Deno.readTextFile(host.subnetFile),
      }
      : {}),
  };
}

/** A GET of a program on the host. */
async function metadata(host: Host, path: string, signal: AbortSignal): Promise<string> {
  const script =
    'exec 3<>/dev/tcp/100.100.100.200/80; printf "GET %s HTTP/1.0\\r\\n\\r\\n" "$1" >&3; ' +
    "cat <&3";
  const text = await host.namespace.run("bash", ["-c", script, "get", path], { signal });
  return text.slice(text.indexOf("\r\n\r\n") + 4);
}

labTest("no secret is in any log, status, file, message or command line", async ({ signal }) => {
  const none = { ACCESS_KEY_ID: "", ACCESS_KEY_SECRET: "" };
  await using lab = await openCloudLab({
    signal,
    hosts: 6,
    cloud: {
      ramRole: true,
      customise: (config) => ({
        ...config,
        accessKeys: [...config.accessKeys ?? [], ...Object.values(KEYS)],
      }),
    },
  });
  const { control } = lab.cloud;
  const session = JSON.parse(
    await metadata(lab.hosts[0]!, `/latest/meta-data/ram/security-credentials/${RAM_ROLE}`, signal),
  );
  const role = {
    "the role's key id": session.AccessKeyId as string,
    "the role's key": session.AccessKeySecret as string,
    "the role's token": session.SecurityToken as string,
  };
  assert.ok(role["the role's token"].length > 500);

  // Each host writes its route itself; what is in its config is in the order of the hosts.
  const backends = [
    { AccessKeyID: KEYS.config.id, AccessKeySecret: KEYS.config.secret },
    {
      AccessKeyID: session.AccessKeyId,
      AccessKeySecret: session.AccessKeySecret,
      SecurityToken: session.SecurityToken,
    },
  ];
  const clusters = new Map<Host, string[]>();
  for (const [index, host] of lab.hosts.entries()) {
    clusters.set(host, await ownCluster(lab, host, { signal, backend: backends[index] ?? {} }));
  }
  for (
    const args of [
      ["role", "add", "root"],
      ["user", "add", `root:${PASSWORD}`],
      ["user", "grant-role", "root", "root"],
      ["auth", "enable"],
    ]
  ) await lab.etcd.ctl(args, { signal });

  const byFlag = ["--etcd-username=root", `--etcd-password=${PASSWORD}`];
  const byEnv = { FLANNELD_ETCD_USERNAME: "root", FLANNELD_ETCD_PASSWORD: PASSWORD };
  /** Lives through trouble of every kind, and is looked at then. */
  const live = (
    secrets: Readonly<Record<string, string>>,
    start: { flags?: string[]; env?: Record<string, string> },
  ) =>
  async (host: Host) => {
    const daemon = await host.startDaemon({
      flags: [...clusters.get(host)!, "-v=10", ...HEALTH_FLAGS, ...start.flags ?? []],
      env: { ...none, ...start.env },
    });
    await daemon.ready({ signal });
    const all = { ...secrets, "etcd's password": PASSWORD };
    const echo = Object.values(all).map((each) => `${each} ${encodeURIComponent(each)}`).join("&");
    const from = await mark(lab);
    for (
      const effect of [
        {
          kind: "error",
          status: 400,
          code: "SignatureDoesNotMatch",
          message: `Specified signature is not matched. server string to sign is:POST&%2F&${echo}`,
        },
        { kind: "error", status: 500, code: "InternalError", message: `for AccessKeyId=${echo}` },
        { kind: "html", status: 502 },
        { kind: "drop" },
      ] as const
    ) {
      await control.addFault({
        match: { action: "DescribeRouteEntryList", source: host.address },
        times: 1,
        effect,
      });
    }
    await eventually(
      async () =>
        (await callsSince(lab, from, host)).filter(({ code }) => code === "OK").length > 0,
      { signal, title: "the service to recover", timeoutMs: 60_000 },
    );
    await eventually(
      async () => (await askHealth(host, "/readyz", { signal })).status === 200,
      { signal, title: "the host to be ready again" },
    );
    const outputs: Record<string, string> = {
      ...await outputsOf(host, daemon, { signal }),
      // What it has published for other hosts.
      "the store": await lab.etcd.ctl(
        [`--user=root:${PASSWORD}`, "get", "--prefix", `/${host.label}/ali-vpc/`],
        { signal },
      ),
    };
    if (start.flags?.includes(byFlag[1]!)) assert.match(outputs["ps"]!, /--etcd-password=\*+/);
    // A refused signature of temporary keys only makes them be renewed.
    assert.match(outputs["the log"]!, /InternalError \(for AccessKeyId=\[redacted\]/);
    assertHidden(all, outputs);
  };
  /** Gives up at once, and is looked at then. */
  const end = (
    secrets: Readonly<Record<string, string>>,
    start: { flags?: string[]; env: Record<string, string> },
    says: RegExp,
  ) =>
  async (host: Host) => {
    const daemon = await host.startDaemon({
      flags: [...clusters.get(host)!, "-v=10", ...start.flags ?? []],
      env: { ...none, ...byEnv, ...start.env },
    });
    assert.match(await lastWords(daemon, { signal }), says);
    assertHidden(
      { ...secrets, "etcd's password": PASSWORD },
      await outputsOf(host, daemon, { signal }),
    );
  };
  await together(lab, {
    "a key in the config, a password in a flag": live(
      { "the key id": KEYS.config.id, "the key": KEYS.config.secret },
      { flags: byFlag },
    ),
    "a token in the config, JSON": live(role, {
      flags: ["--log-format=json"],
      env: byEnv,
    }),
    "a key in the environment": live(
      { "the key id": KEYS.env.id, "the key": KEYS.env.secret },
      {
        env: { ...byEnv, ACCESS_KEY_ID: KEYS.env.id, ACCESS_KEY_SECRET: KEYS.env.secret },
        flags: ["--log-format=json"],
      },
    ),
    "the instance's role, a password in the endpoint": live(role, {
      flags: [
        `--etcd-endpoints=${
          lab.etcd.endpoints[0]!.replace("//", `//root:${encodeURIComponent(PASSWORD)}@`)
        }`,
      ],
    }),
    "a wrong secret": end(
      { "the key id": KEYS.sdk.id, "the wrong key": WRONG_SECRET },
      {
        env: {
          ALIBABA_CLOUD_ACCESS_KEY_ID: KEYS.sdk.id,
          ALIBABA_CLOUD_ACCESS_KEY_SECRET: WRONG_SECRET,
        },
      },
      /SignatureDoesNotMatch/,
    ),
    "a token of another key": end(
      { "the key id": KEYS.sdk.id, "the key": KEYS.sdk.secret, ...role },
      {
        flags: ["--log-format=json"],
        env: {
          ALIBABA_CLOUD_ACCESS_KEY_ID: KEYS.sdk.id,
          ALIBABA_CLOUD_ACCESS_KEY_SECRET: KEYS.sdk.secret,
          ALIBABA_CLOUD_SECURITY_TOKEN: session.SecurityToken,
        },
      },
      /InvalidSecurityToken/,
    ),
  });

  // etcd away, and back without the tokens it had given out.
  const [host] = lab.hosts;
  const { daemon } = host!;
  const lines = daemon.process.lines.length;
  await lab.etcd.kill();
  await daemon.process.waitForLine(/Peers are not followed/, { signal, from: lines });
  lab.etcd.members[0]!.start(); // its health cannot be asked for without a user now
  await daemon.process.waitForLine(/Peers are followed again/, { signal, from: lines });
  for (const each of lab.hosts.slice(0, 4)) {
    assertHidden(
      { ...role, "etcd's password": PASSWORD },
      await outputsOf(each, each.daemon, { signal }),
    );
  }
});

labTest("a config that is refused does not show what is secret in it", async ({ signal }) => {
  const [id, secret, token] = [canary(), canary(), canary()];
  await using lab = await openCloudLab({
    signal,
    config: brisk({
      AccessKeyID: id,
      AccessKeySecrt: secret,
      SecurityToken: token,
      RouteTableID: 7,
    }),
  });
  const [host] = lab.hosts;
  const daemon = await host!.startDaemon({ flags: ["-v=10"] });
  const words = await lastWords(daemon, { signal });
  assert.match(words, /RouteTableID/);
  assert.match(words, /AccessKeySecret/);
  assertHidden({ id, secret, token }, await outputsOf(host!, daemon, { signal }));
});
