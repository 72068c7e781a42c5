import { openNetlink } from "../../src/kernel/open_netlink.ts";
import { FakeKernel } from "../fakes/fake_netlink.ts";
import { createTestNamespace, namespaceObstacle } from "./namespace.ts";
import { type ContractKernel, netlinkContract } from "./netlink_contract.ts";

const obstacle = namespaceObstacle();

netlinkContract("FakeNetlink", () => {
  const kernel = new FakeKernel();
  return Promise.resolve({ open: () => kernel.open(), async [Symbol.asyncDispose]() {} });
});

netlinkContract(
  "Netlink",
  async (): Promise<ContractKernel> => {
    const namespace = await createTestNamespace();
    return {
      open: () => openNetlink({ namespace: namespace.path }),
      [Symbol.asyncDispose]: () => namespace[Symbol.asyncDispose](),
    };
  },
  obstacle,
);
