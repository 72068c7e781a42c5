import { FakeKernel } from "../fakes/fake_netlink.ts";
import { ipipContract } from "./ipip_contract.ts";

// The kernel's turn comes in tests/vm/suite, as many kernels lack ipip.
ipipContract("FakeNetlink", () => {
  const kernel = new FakeKernel();
  return Promise.resolve({ open: () => kernel.open(), async [Symbol.asyncDispose]() {} });
});
