/** The RAM actions that are called, and who needs them. @module */
import { WORDS } from "./words.ts";

/**
 * Who needs the right to an action:
 *
 * - `writers`: hosts that may write route entries (`--ali-route-writer=auto`). Another host needs
 *   it only to write its own entry while no host writes for all.
 * - `interfaces`: who looks after source/destination checks: the leader for all hosts, and a host
 *   for its own where the leader has not found it off; nobody with `"SourceDestCheck": "ignore"`.
 */
export type NeededBy = "writers" | "interfaces";

/** Every RAM action that is ever called. The policies in docs/install-ecs.md are tested against it. */
export const RAM_ACTIONS: Readonly<Record<string, NeededBy>> = {
  "vpc:DescribeVpcAttribute": "writers",
  "vpc:DescribeVSwitchAttributes": "writers",
  "vpc:DescribeVSwitches": "writers",
  "vpc:DescribeRouteTableList": "writers",
  "vpc:DescribeRouteEntryList": "writers",
  "vpc:CreateRouteEntry": "writers",
  "vpc:DeleteRouteEntry": "writers",
  "vpc:ModifyRouteEntry": "writers",
  "vpc:CreateRouteEntries": "writers",
  "vpc:DeleteRouteEntries": "writers",
  "ecs:DescribeNetworkInterfaces": "interfaces",
  "ecs:ModifyNetworkInterfaceAttribute": "interfaces",
};

/** What to do where RAM denies `action`; without full stop. */
export function adviseOnDenial(action: string): string {
  const allow = `allow ${action} in the RAM policy of this key or role (${WORDS.rights}, has the ` +
    "smallest one)";
  if (RAM_ACTIONS[action] !== "writers") return allow;
  return `${allow}; only hosts that write routes need it: where others do, start this one with ` +
    "--ali-route-writer=never";
}
