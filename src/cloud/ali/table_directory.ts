/** The route tables and vSwitches of a VPC. @module */
import { CloudApiError } from "../routes/cloud_error.ts";
import type { SubnetInfo, TableDirectory, TableInfo } from "../routes/table_choice.ts";
import type { VpcClient } from "./vpc_client.ts";
import type { RouteTableInfo, VSwitchInfo } from "./vpc_replies.ts";

/** The tables and vSwitches of a VPC. */
export function tableDirectory(vpc: VpcClient, vpcId: string): TableDirectory {
  return {
    subnetNoun: "vSwitch",
    listTables: async (options) =>
      (await vpc.describeRouteTableList({ vpcId }, options))
        .filter((table) => table.vpcId === "" || table.vpcId === vpcId)
        .map(toTable),
    tableOf: async (id, options) => (await vpc.describeVSwitchAttributes(id, options)).routeTableId,
    async listSubnets(tables, options): Promise<readonly SubnetInfo[]> {
      try {
        return await vpc.describeVSwitches(vpcId, options);
      } catch (error) {
        // The smallest policy has only the call for one vSwitch.
        const isDenied = error instanceof CloudApiError && error.reaction.do === "denied";
        if (!isDenied) throw error;
        const found: VSwitchInfo[] = [];
        for (const id of new Set(tables.flatMap((table) => table.subnetIds))) {
          found.push(await vpc.describeVSwitchAttributes(id, options));
        }
        return found;
      }
    },
  };
}

function toTable(table: RouteTableInfo): TableInfo {
  return {
    id: table.id,
    name: table.name,
    servesInstances: table.associateType === "VSwitch",
    isMain: table.type !== "Custom",
    subnetIds: table.vSwitchIds,
  };
}
