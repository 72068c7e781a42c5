import { openNetlink } from "../../src/kernel/netlink/rtnetlink.ts";
import { FakeKernel } from "../fakes/fake_netlink.ts";
import { createTestNamespace, namespaceObstacle } from "./namespace.ts";
import { netlinkContract, type RuleKernel } from "./netlink_contract.ts";

const obstacle = namespaceObstacle();

netlinkContract("FakeNetlink", () => {
  const kernel = new FakeKernel();
  return Promise.resolve({
    open: () => kernel.open(),
    addRule: (rule) => Promise.resolve(void kernel.rules.push(rule)),
    async [Symbol.asyncDispose]() {},
  });
});

netlinkContract(
  "Netlink",
  async (): Promise<RuleKernel> => {
    const namespace = await createTestNamespace();
    return {
      open: () => openNetlink({ namespace: namespace.path }),
      async addRule({ family, priority, table, protocol, from, mark, mask, ...rest }) {
        const { ipProtocol, sourcePorts, ports } = rest;
        const selector = ["from", `${from}`, "fwmark", `${mark}/${mask}`];
        const action = ["lookup", `${table}`, "protocol", `${protocol}`];
        const priorities = ["priority", `${priority}`];
        await namespace.run(
          "ip",
          `-${family}`,
          "rule",
          "add",
          ...priorities,
          ...selector,
          ...(ipProtocol ? ["ipproto", `${ipProtocol}`] : []),
          ...(sourcePorts ? ["sport", sourcePorts.join("-")] : []),
          ...(ports ? ["dport", ports.join("-")] : []),
          ...action,
        );
      },
      [Symbol.asyncDispose]: () => namespace[Symbol.asyncDispose](),
    };
  },
  obstacle,
);
