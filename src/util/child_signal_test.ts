import assert from "node:assert/strict";
import { childSignal } from "./child_signal.ts";
import { deadline } from "./time.ts";

/** A signal that counts its listeners. */
function countedSignal() {
  const controller = new AbortController();
  const { signal } = controller;
  const count = { listeners: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    count.listeners++;
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    count.listeners--;
    removeEventListener.apply(signal, args);
  };
  return { controller, signal, count };
}

Deno.test("childSignal() aborts with its parent, alone, and on disposal", () => {
  const { controller, signal } = countedSignal();
  using first = childSignal(signal);
  using second = childSignal(signal);
  second.abort(new Error("enough"));
  assert.match(String(second.signal.reason), /enough/);
  assert.equal(first.signal.aborted, false);
  controller.abort(new Error("all of it"));
  assert.match(String(first.signal.reason), /all of it/);
  assert.match(String(second.signal.reason), /enough/);
  using late = childSignal(signal);
  assert.match(String(late.signal.reason), /all of it/);

  const third = childSignal(new AbortController().signal);
  third[Symbol.dispose]();
  assert.equal(third.signal.aborted, true);
});

Deno.test("childSignal() and deadline() leave nothing behind on a long-lived parent", () => {
  const { signal, count } = countedSignal();
  for (let n = 0; n < 100; n++) {
    using _child = childSignal(signal);
    using limit = deadline(60_000, { signal });
    assert.equal(limit.signal.aborted, false);
    assert.equal(count.listeners, 2);
  }
  assert.equal(count.listeners, 0);
});

Deno.test("childSignal() aborts with whichever parent is first, and leaves none a listener", () => {
  const [long, short] = [countedSignal(), countedSignal()];
  const child = childSignal(long.signal, short.signal);
  short.controller.abort(new Error("short"));
  assert.match(String(child.signal.reason), /short/);
  const late = childSignal(long.signal, short.signal);
  assert.match(String(late.signal.reason), /short/);
  for (const each of [child, late]) each[Symbol.dispose]();
  assert.equal(long.count.listeners, 0);
});
