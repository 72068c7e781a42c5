import assert from "node:assert/strict";
import type { Notifier } from "../service_manager/notify.ts";
import { Progress } from "./progress.ts";

/** A terminal that shows lines, and a notifier that a progress follows. */
function terminal({ columns }: { columns: number | undefined }) {
  const written: string[] = [];
  let seconds = 0;
  const progress = new Progress((line) => written.push(line), {
    columns,
    clock: () => seconds * 1_000,
  });
  const sent: string[] = [];
  const send = (text: string) => sent.push(text) > 0;
  const notifier = progress.following(
    {
      problem: undefined,
      ready: () => send("ready"),
      status: send,
      stopping: () => send("stopping"),
      alive: () => send("alive"),
      [Symbol.dispose]() {},
    } satisfies Notifier,
  );
  return {
    progress,
    notifier,
    sent,
    pass: (s: number) => seconds += s,
    /** The lines that are to be seen. */
    get screen() {
      const lines: string[] = [];
      for (const line of written) {
        if (line.startsWith("\u001b[1A\u001b[J")) lines.pop();
        const text = line.replace("\u001b[1A\u001b[J", "");
        if (text !== "\u001b[1A") lines.push(text);
      }
      return lines;
    },
  };
}

Deno.test("Progress shows what is waited for below the log, until the daemon is ready", () => {
  const shown = terminal({ columns: 40 });
  using notifier = shown.notifier;
  shown.progress.log("Starting");
  notifier.status("Waiting for etcd\u001b[31m");
  shown.pass(7);
  shown.progress.log("Cannot read it yet");
  assert.deepEqual(shown.screen, ["Starting", "Cannot read it yet", "Waiting for etcd [31m  7 s"]);
  notifier.status("Choosing the external interface of this host");
  assert.equal(shown.screen.at(-1), "Choosing the external interface of  0 s");
  notifier.ready();
  notifier.status("Ready");
  shown.progress.log("Done");
  assert.deepEqual(shown.screen, ["Starting", "Cannot read it yet", "Done"]);
  assert.deepEqual(shown.sent.slice(-2), ["ready", "Ready"]);
});

Deno.test("Progress writes the log alone where there is no terminal", () => {
  const shown = terminal({ columns: undefined });
  using notifier = shown.notifier;
  notifier.status("Waiting");
  shown.progress.log("Starting");
  notifier.ready();
  assert.deepEqual(shown.screen, ["Starting"]);
});
