/** How etcd fails, in words for an operator and in kinds for the code. @module */
import { describeError } from "../../errors.ts";
import { StoreError } from "../errors.ts";
import { describeConnectError } from "./tls_errors.ts";

/**
 * What a response of etcd v3 means for the next step:
 *
 * | kind | next step |
 * | --- | --- |
 * | `unreachable`, `lost`, `timeout` | another connection, another endpoint |
 * | `unready` | another endpoint: this member has no leader, is starting or is overloaded |
 * | `token` | authenticate again on the same connection |
 * | `compacted` | a fresh snapshot |
 * | `too-large` | ask for less at a time |
 * | `not-served` | the v2 API, perhaps |
 * | `denied`, `refused` | none: the caller decides |
 */
export type EtcdErrorKind =
  | "unreachable"
  | "lost"
  | "timeout"
  | "unready"
  | "token"
  | "compacted"
  | "too-large"
  | "not-served"
  | "denied"
  | "refused";

/** A {@linkcode StoreError} that knows what etcd v3 said. */
export class EtcdError extends StoreError {
  override name = "EtcdError";
  readonly kind: EtcdErrorKind;
  /** The member's URL. */
  readonly endpoint: string;
  /** The reason alone, to follow the URL in a list of failures. */
  readonly detail: string;

  constructor(kind: EtcdErrorKind, endpoint: string, detail: string, options?: ErrorOptions) {
    const reason = kind === "denied" ? "denied" : kind === "refused" ? "invalid" : "unavailable";
    const object = kind === "unreachable" || kind === "timeout" ? "reach etcd" : "use etcd";
    super(reason, `Cannot ${object} at ${endpoint}: ${detail}`, options);
    this.kind = kind;
    this.endpoint = endpoint;
    this.detail = detail;
  }

  /** Whether only the response may be lost: a write is not repeated then. */
  get mayHaveRun(): boolean {
    return this.kind === "lost" || this.kind === "timeout";
  }

  /** Whether another member, or another connection, may do better. */
  get isPassing(): boolean {
    return this.mayHaveRun || this.kind === "unreachable" || this.kind === "unready" ||
      this.kind === "not-served";
  }
}

// https://grpc.github.io/grpc/core/md_doc_statuscodes.html
const CANCELLED = 1;
const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const FAILED_PRECONDITION = 9;
const OUT_OF_RANGE = 11;
const UNIMPLEMENTED = 12;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

/**
 * The error of a gRPC call (`code` and `details`), sorted out. The texts are those of etcd's
 * `api/v3rpc/rpctypes/error.go`.
 */
export function fromGrpcError(error: unknown, endpoint: string): EtcdError {
  if (error instanceof EtcdError) return error;
  const { code, details } = error as { code?: unknown; details?: unknown };
  const text = typeof details === "string" && details !== "" ? details : describeError(error);
  const detail = text.replace(/^etcdserver: (mvcc: )?/, "");
  // Without a cause: its text would repeat the sentence.
  const make = (kind: EtcdErrorKind, what = detail) => new EtcdError(kind, endpoint, what);
  switch (code) {
    case DEADLINE_EXCEEDED:
      return make("timeout", "no answer in time");
    case UNAUTHENTICATED:
      return make("token");
    case PERMISSION_DENIED:
      return make("denied", "the user lacks the permission for this key range");
    case INVALID_ARGUMENT:
      if (/authentication failed/.test(text)) return make("denied", "wrong user name or password");
      // Authentication was switched on, or the roles changed, since the token was issued.
      if (/user name is empty|revision of auth store is old/.test(text)) return make("token");
      return make("refused");
    case RESOURCE_EXHAUSTED:
      if (/message larger than max/i.test(text)) return make("too-large");
      if (/database space exceeded/.test(text)) {
        return make("unready", "its database is full: compact, defragment and disarm the alarm");
      }
      return make("unready");
    case OUT_OF_RANGE:
      return /compacted/.test(text) ? make("compacted") : make("unready");
    case UNIMPLEMENTED:
      return make("not-served", `the v3 API is not served there${portHint(endpoint)}`);
    case NOT_FOUND:
    case FAILED_PRECONDITION:
      return make("refused");
    case UNAVAILABLE:
      if (/no leader|not capable|server stopped|too many requests/.test(text)) {
        return make("unready");
      }
      // What HTTP/2 calls a response in HTTP/1: an etcd before 3, or no etcd at all.
      if (/No connection established.*Protocol error/.test(text)) {
        return make("not-served", `the v3 API is not served there${portHint(endpoint)}`);
      }
      if (/No connection established|Name resolution failed/.test(text)) {
        return make("unreachable", describeConnectError(text));
      }
      if (/leader changed|timed out/.test(text)) return make("timeout");
      return make("lost", describeConnectError(text));
    case CANCELLED:
      return make("lost", "the call was cancelled");
    default:
      return make("lost", describeConnectError(text));
  }
}

/** What to do where no API of etcd is served, if the port tells. */
export function portHint(endpoint: string): string {
  return endpoint.endsWith(":2380")
    ? ": 2380 is for etcd's own members, its clients' port is 2379"
    : "";
}

/**
 * The failures of all members as one error. Its kind is `not-served` if every member that could be
 * reached said so, else that of the last one to say otherwise.
 */
export function joinFailures(failures: readonly EtcdError[]): EtcdError {
  const reached = failures.filter(({ kind }) => kind !== "unreachable");
  const notServed = reached.length > 0 && reached.every(({ kind }) => kind === "not-served");
  const decisive = failures.findLast(({ kind }) => notServed === (kind === "not-served"))!;
  const reasons = new Map(failures.map(({ endpoint, detail }) => [endpoint, detail]));
  if (reasons.size === 1) return decisive;
  const all = [...reasons].map(([endpoint, detail]) => `${endpoint}: ${detail}`).join("; at ");
  const [first] = reasons.keys();
  return new EtcdError(decisive.kind, first!, all.slice(`${first}: `.length));
}
