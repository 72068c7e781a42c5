import type { Cloud } from "./cloud.ts";
import type { Principal } from "./credentials.ts";
import type { Parameters } from "./parameters.ts";

/** One call that has passed the gate. */
export interface Call {
  readonly cloud: Cloud;
  readonly params: Parameters;
  readonly principal: Principal;
  readonly regionId: string;
  /** To be called when a write has taken effect. */
  readonly performed: () => void;
}

/** One action of an API. */
export interface Action {
  readonly name: string;
  /** Whether the service insists on RegionId; without it the default region is meant. */
  readonly regionRequired?: boolean;
  /** Answers the members of the body besides RequestId. @throws {ApiError} */
  readonly handle: (call: Call) => Readonly<Record<string, unknown>>;
}
