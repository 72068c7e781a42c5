import assert from "node:assert/strict";
import fc from "fast-check";
import { NetlinkError } from "../ffi/libnl/errors.ts";
import { describeError, OperatorError } from "./errors.ts";

Deno.test("describeError() says an operation once, however often it was wrapped", () => {
  const kernel = new NetlinkError("Cannot add link flannel.1", 1);
  assert.equal(
    describeError(kernel, "Cannot add link flannel.1 vxlan id 1 port 8472"),
    "Cannot add link flannel.1 vxlan id 1 port 8472: operation not permitted",
  );
  const explained = new OperatorError("Cannot add link flannel.1: this kernel has no vxlan", {
    cause: new NetlinkError("Cannot add link flannel.1", 95),
  });
  assert.equal(
    describeError(explained, "Cannot add link flannel.1 vxlan id 1"),
    "Cannot add link flannel.1 vxlan id 1: this kernel has no vxlan: operation not supported",
  );
  const twice = new Error(`Cannot release: ${kernel.message}`, { cause: kernel });
  assert.equal(
    describeError(twice),
    "Cannot release: Cannot add link flannel.1: operation not permitted",
  );
});

Deno.test("describeError() keeps steps of other names apart", () => {
  const step = new NetlinkError("Cannot remove link flannel.1", 16);
  assert.equal(
    describeError(step, "Cannot replace link flannel.1 vxlan id 1"),
    "Cannot replace link flannel.1 vxlan id 1: Cannot remove link flannel.1: " +
      "resource busy or locked",
  );
});

Deno.test("describeError() names a path once", async () => {
  const path = "/nowhere/at/all.pem";
  const cause = await Deno.readTextFile(path).catch((error) => error);
  assert.equal(
    describeError(new Error(`Cannot read the CA ${path}`, { cause })),
    `Cannot read the CA ${path}: No such file or directory (os error 2)`,
  );
  assert.ok(describeError(cause).includes(path));
});

Deno.test("describeError() says a reason of several errors once", () => {
  const error = new AggregateError(
    [new Error("connection refused"), new Error("connection refused"), new Error("no route")],
    "Cannot reach etcd",
  );
  assert.equal(describeError(error), "Cannot reach etcd: connection refused; no route");
});

Deno.test("describeError() never drops a reason that was not said", () => {
  const word = fc.constantFrom(
    "Cannot add link a",
    "Cannot add link a b",
    "busy",
    "denied",
    "x: y",
  );
  fc.assert(fc.property(fc.array(word, { minLength: 1, maxLength: 5 }), (texts) => {
    const error = texts.reduceRight<Error | undefined>(
      (cause, text) => new Error(text, cause === undefined ? {} : { cause }),
      undefined,
    );
    const described = describeError(error);
    for (const text of texts) {
      for (const part of text.split(": ")) assert.ok(described.includes(part));
    }
  }));
});
