/** Alibaba Cloud as a provider of routes. @module */
import { aliVpc as backend, readAliVpcClaim } from "../../backends/ali_vpc.ts";
import { type AliVpcOptions, identifyAliVpc } from "./identify.ts";

/** What the command line says. */
export interface AliVpcSettings {
  /** Whether hosts may write route entries at all. */
  readonly mayLead: boolean;
  readonly endpoints: NonNullable<AliVpcOptions["endpoints"]>;
}

/** The definition of `ali-vpc`. */
export function aliVpc({ mayLead, endpoints }: AliVpcSettings) {
  return {
    name: backend.type,
    mayLead,
    readClaim: readAliVpcClaim,
    open: (options: Omit<AliVpcOptions, "endpoints">) => identifyAliVpc({ ...options, endpoints }),
  };
}
