import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { openLab } from "./lab.ts";
import { labTest } from "./lab_test_case.ts";
import { startLossProbe } from "./loss_probe.ts";

labTest("a stream of datagrams tells how long packets were lost", async ({ signal }) => {
  await using lab = await openLab({ signal, hosts: 2, etcd: false, cloud: false });
  const [from, to] = lab.hosts;
  const options = { signal, directory: lab.directory };
  {
    const probe = await startLossProbe(from!, to!, options);
    await delay(500, { signal });
    const report = await probe.stop({ signal });
    assert.ok(report.sent > 100, `${report.sent} sent`);
    assert.equal(report.lost, 0);
    assert.equal(report.longestGapMs, 0);
  }
  const probe = await startLossProbe(from!, to!, options);
  await delay(200, { signal });
  await lab.router.cut(from!.identity.port, to!.identity.port, { signal });
  await delay(400, { signal });
  await lab.router.heal({ signal });
  await delay(200, { signal });
  const report = await probe.stop({ signal });
  assert.ok(report.longestGapMs >= 300, `${report.longestGapMs} ms`);
  assert.ok(report.lost < report.sent, "what was sent before and after came back");
});
