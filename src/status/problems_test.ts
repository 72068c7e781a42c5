import assert from "node:assert/strict";
import type { Finding } from "./model.ts";
import { Outage, ProblemLog, type ProblemLogOptions, sentenceOf } from "./problems.ts";
import { recordLog } from "../../tests/support/log.ts";

const peerLog: ProblemLogOptions = {
  one: ({ message }) => `Peer is left out: ${message}`,
  field: "key",
  more: "more peers are left out",
  none: "No peer is left out any more",
  maxLines: 30,
};

function setUp(options: ProblemLogOptions = peerLog) {
  const { lines, log } = recordLog();
  return { lines, problems: new ProblemLog(log, options) };
}

const found = (
  object: string,
  message: string,
  code: Finding["code"] = "peer-address",
): Finding => ({
  code,
  object,
  message,
});

Deno.test("ProblemLog says each problem once, and when there is none any more", () => {
  const { lines, problems } = setUp();
  problems.set([]);
  problems.set([found("a", "it has no address")]);
  problems.set([found("a", "it has no address")]);
  problems.set([found("a", "in other words, no address"), found("b", "no MAC", "peer-device")]);
  problems.set([found("a", "no MAC either", "peer-device"), found("b", "no MAC", "peer-device")]);
  problems.set([]);
  problems.set([]);
  assert.deepEqual(lines, [
    "WARN  Peer is left out: it has no address key=a",
    "WARN  Peer is left out: no MAC key=b",
    "WARN  Peer is left out: no MAC either key=a",
    "INFO  No peer is left out any more",
  ]);
});

Deno.test("ProblemLog says of each problem that it is over, and keeps those of others", () => {
  const { lines, problems } = setUp({ over: (it) => [`No longer true: ${sentenceOf(it)}`] });
  problems.set([found("x", "x"), { ...found("y", "y"), remedy: "To let it through: run z" }], "a");
  problems.set([{ ...found("y", "y"), remedy: "To let it through: run z" }], "b");
  assert.deepEqual(problems.problems.map(sentenceOf), ["x", "y. To let it through: run z"]);
  problems.set([], "a");
  assert.deepEqual(problems.problems.map(({ object }) => object), ["y"]);
  problems.set([], "b");
  assert.deepEqual(lines, [
    "WARN  x",
    "WARN  y. To let it through: run z",
    "INFO  No longer true: x",
    "INFO  No longer true: y. To let it through: run z",
  ]);
});

Deno.test("ProblemLog keeps since when a problem lasts, whatever its words", () => {
  let time = 5;
  const { problems } = setUp({ now: () => time });
  problems.set([found("a", "one")]);
  time = 7;
  problems.set([found("b", "two"), found("a", "other words")]);
  assert.deepEqual(problems.problems.map(({ object, since }) => [object, since]), [
    ["b", 7],
    ["a", 5],
  ]);
  assert.equal(problems.dated(found("a", "x")).since, 5);
});

Deno.test("ProblemLog names and lists some of very many, and counts them all", () => {
  const { lines, problems } = setUp();
  problems.set(Array.from({ length: 1_000 }, (_, n) => found(`k${n}`, "junk")));
  assert.equal(lines.length, 11);
  assert.equal(lines.at(-1), "WARN  and 990 more peers are left out");
  assert.equal(problems.count, 1_000);
  assert.equal(problems.first(100).length, 100);
});

Deno.test("ProblemLog tells what was found twice of one problem together", () => {
  const { lines, problems } = setUp();
  problems.set([found("a", "no IPv4 address"), found("a", "no IPv6 address")]);
  assert.deepEqual(lines, ["WARN  Peer is left out: no IPv4 address; no IPv6 address key=a"]);
});

Deno.test("ProblemLog does not follow a flood: what comes and goes again and again", () => {
  let time = 0;
  const { lines, problems } = setUp({ ...peerLog, now: () => time });
  for (let n = 0; n < 1_000; n++, time += 100) {
    problems.set([found("junk", `it is no lease: "${n}"`)]);
    if (n % 2 === 0) problems.set([]);
  }
  assert.equal(lines.length, 31);
  assert.match(lines.at(-1)!, /too often: it is logged again in ten minutes/);
  assert.equal(problems.count, 1);
  time += 600_000;
  problems.set([found("other", "it is something else")]);
  assert.equal(lines.length, 32);
});

Deno.test("ProblemLog is quiet about what returns soon, where it is told to be", () => {
  let time = 0;
  const { lines, problems } = setUp({
    none: "All in order again",
    quietMs: 600_000,
    now: () => time,
  });
  for (let n = 0; n < 10; n++, time += 60_000) {
    problems.set([found("a", "throttled")]);
    problems.set([]);
  }
  assert.deepEqual(lines, ["WARN  throttled", "INFO  All in order again"]);
  time += 600_001;
  problems.set([found("a", "throttled")]);
  assert.equal(lines.length, 3, "after ten minutes it is news");
});

class CodedError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

function setUpOutage(verbosity = 0) {
  const { lines, log } = recordLog(verbosity);
  let time = 0;
  const outage = new Outage(log, {
    code: "store-unreachable",
    object: "leases",
    failed: "Etcd is unreachable",
    recovered: "Etcd is reachable again",
    now: () => time,
  });
  return { lines, outage, sleep: (ms: number) => time += ms };
}

Deno.test("Outage logs one line per change of state", () => {
  const { lines, outage, sleep } = setUpOutage();
  outage.working();
  for (let i = 0; i < 31; i++) {
    outage.failing(new Error("connection refused"));
    sleep(2000);
  }
  assert.equal(outage.problem?.since, 0);
  outage.working();
  outage.working();
  assert.equal(outage.problem, undefined);
  outage.failing(new Error("connection refused"));
  assert.deepEqual(lines, [
    "WARN  Etcd is unreachable: connection refused",
    "INFO  Etcd is reachable again after 62 s failures=31",
    "WARN  Etcd is unreachable: connection refused",
  ]);
});

Deno.test("Outage logs each cause once, whatever its words, and not without bound", () => {
  const { lines, outage } = setUpOutage();
  for (let i = 0; i < 10; i++) {
    outage.failing(new CodedError("ECONNREFUSED", `refused, request ${crypto.randomUUID()}`));
    outage.failing(new CodedError("unavailable", `no leader after ${i} s`));
  }
  assert.equal(lines.length, 2);
  for (let n = 0; n < 100; n++) outage.failing(new CodedError(`E${n}`, "failed"));
  assert.equal(lines.length, 5);
});

Deno.test("Outage tells further failures to who asks for more", () => {
  const { lines, outage } = setUpOutage(1);
  for (const reason of ["one", "two"]) {
    assert.equal(outage.failing(new Error(reason)).message, reason);
  }
  assert.deepEqual(lines, ["WARN  Etcd is unreachable: one", "DEBUG Etcd is unreachable: two"]);
});
