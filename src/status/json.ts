/**
 * Renders `/status` and `/readyz`. Fields of the JSON keep name and meaning, as scripts read them;
 * new ones may be added.
 *
 * @module
 */
import { describeError } from "../errors.ts";
import { redact } from "../secret.ts";
import type {
  CloudStatus,
  ClusterStatus,
  DaemonStatus,
  FirewallStatus,
  Instant,
  LeaderStatus,
  LeaseStatus,
  LeftOutStatus,
  Problem,
  ReconcilerStatus,
  StatusSource,
  TableStatus,
} from "./model.ts";
import { identityOf, sentenceOf } from "./problems.ts";
import { reasonsOf, remarksOf } from "./readiness.ts";

/** ISO 8601. */
type Time = string;

export type ProblemJson = Omit<Problem, "since" | "cause"> & { readonly since: Time };

/** A {@linkcode TableStatus}. */
export interface TableJson extends Omit<TableStatus, "problems" | "since" | "lastChangeAt"> {
  readonly reconciler: string;
  readonly problems: readonly ProblemJson[];
  readonly since: Time;
  readonly lastChange: Time | null;
}

export type RoundJson = ReturnType<typeof roundJson>;

/** What `/status` serves. A part that cannot be determined is `{error}` instead. */
export interface StatusJson {
  readonly ready: boolean;
  /** Why it is not ready, one sentence each. */
  readonly reasons: readonly string[];
  /** What is degraded without affecting readiness; missing if nothing is. */
  readonly remarks?: readonly string[];
  readonly status: StatusFacts;
}

/** Parts that the start has not reached are missing. */
export interface StatusFacts {
  readonly version: string;
  readonly reconcilers: Readonly<Record<string, RoundJson>>;
  readonly tables: readonly TableJson[];
  readonly conditions: Readonly<
    Record<string, {
      readonly state: "met" | "doubtful" | "unmet";
      readonly since: Time;
      readonly problems: readonly ProblemJson[];
    }>
  >;
  /** All present problems; at most 200. */
  readonly problems: readonly ProblemJson[];
  readonly network?: readonly string[];
  readonly backend?: string;
  readonly interface?: DaemonStatus["interface"];
  readonly overlaps?: readonly string[];
  readonly lease?: ReturnType<typeof renderLease>;
  readonly store?: {
    readonly what: string;
    readonly connected: boolean;
    readonly since: Time;
    readonly problem?: ProblemJson;
  };
  readonly peers?: number;
  readonly skippedPeers?: { readonly count: number; readonly reasons: Record<string, string> };
  readonly paths?: DaemonStatus["paths"];
  readonly skippedLeases?: Record<string, string>;
  readonly firewall?: { readonly program: string; readonly warnings: readonly string[] };
  readonly surroundings?: { readonly warnings: readonly string[] };
  readonly cloud?: ReturnType<typeof renderCloud>;
  readonly dataPlane?: DaemonStatus["dataPlane"];
}

/** Problems in the list of all. */
const LISTED_PROBLEMS = 200;

/** The body of `/readyz`; the first line says whether the daemon is ready. */
export function renderReadyz({ conditions }: Pick<StatusSource, "conditions">): {
  readonly ready: boolean;
  readonly text: string;
} {
  const statuses = conditions();
  const reasons = reasonsOf(statuses);
  const ready = reasons.length === 0;
  const first = ready ? "flanneld is ready" : "flanneld is not ready yet";
  return { ready, text: redact([first, ...reasons, ...remarksOf(statuses)].join("\n")) };
}

/** The body of `/status`, without secrets. A part that throws affects no other. */
export function renderStatus(source: StatusSource): string {
  const clock = new WallClock();
  const statuses = source.conditions();
  const reasons = reasonsOf(statuses);
  const remarks = remarksOf(statuses);
  const problems: Problem[] = statuses.flatMap(({ problems }) => problems);
  const facts: Record<string, unknown> = {};
  for (const [part, read] of Object.entries(source)) {
    try {
      const value = read();
      if (value === undefined) continue;
      const render = RENDERERS[part as keyof DaemonStatus] as Render<unknown>;
      for (const [name, fact] of Object.entries(render(value, { clock, problems }))) {
        facts[name] = JSON.parse(JSON.stringify(fact, toPlain) ?? "null");
      }
    } catch (error) {
      facts[part] = { error: redact(`Cannot determine: ${describeError(error)}`) };
    }
  }
  const unique = new Map(problems.map((each) => [identityOf(each), each]));
  facts["problems"] = [...unique.values()].slice(0, LISTED_PROBLEMS).map(clock.problem);
  const page: StatusJson = {
    ready: reasons.length === 0,
    reasons,
    ...(remarks.length > 0 ? { remarks } : {}),
    status: facts as unknown as StatusFacts,
  };
  return redact(JSON.stringify(page, toPlain, 2));
}

interface Context {
  readonly clock: WallClock;
  /** Collects the problems of all parts. */
  readonly problems: Problem[];
}

/** A part of the model as fields of {@linkcode StatusFacts}. */
type Render<Part> = (part: Part, context: Context) => Partial<StatusFacts>;

const RENDERERS: { [Part in keyof DaemonStatus]-?: Render<NonNullable<DaemonStatus[Part]>> } = {
  version: (version) => ({ version }),
  conditions: (conditions, { clock }) => ({
    conditions: Object.fromEntries(conditions.map(({ id, state, since, problems }) => [
      id,
      { state, since: clock.time(since), problems: problems.map(clock.problem) },
    ])),
  }),
  network: (networks) => ({ network: networks.map(String) }),
  backend: (backend) => ({ backend }),
  interface: (found) => ({ interface: found }),
  overlaps({ places, problems: found }, { problems }) {
    problems.push(...found);
    return { overlaps: places };
  },
  lease: (lease, { clock, problems }) => {
    if (lease.problem) problems.push(lease.problem);
    return { lease: renderLease(lease, clock) };
  },
  store: ({ what, connected, since, problem }, { clock }) => ({
    store: {
      what,
      connected,
      since: clock.time(since),
      ...(problem ? { problem: clock.problem(problem) } : {}),
    },
  }),
  peers({ count, leftOut }, { problems }) {
    problems.push(...leftOut.problems);
    return {
      peers: count,
      skippedPeers: { count: leftOut.count, reasons: reasonsByObject(leftOut) },
    };
  },
  skippedLeases(leftOut, { problems }) {
    problems.push(...leftOut.problems);
    return { skippedLeases: reasonsByObject(leftOut) };
  },
  firewall({ program, problems: found }: FirewallStatus, { problems }) {
    problems.push(...found);
    return { firewall: { program, warnings: found.map(sentenceOf) } };
  },
  surroundings({ problems: found }, { problems }) {
    problems.push(...found);
    return { surroundings: { warnings: found.map(sentenceOf) } };
  },
  reconcilers(reconcilers, { clock, problems }) {
    const entries = Object.entries(reconcilers) as [string, ReconcilerStatus][];
    for (const [, report] of entries) problems.push(...report.problems);
    return {
      reconcilers: Object.fromEntries(entries.map(([name, report]) => [name, roundJson(report)])),
      tables: entries.flatMap(([reconciler, { tables }]) =>
        tables.map(({ problems, since, lastChangeAt, ...table }): TableJson => ({
          reconciler,
          ...table,
          since: clock.time(since),
          lastChange: lastChangeAt === undefined ? null : clock.time(lastChangeAt),
          problems: problems.map(clock.problem),
        }))
      ),
    };
  },
  paths: (paths) => ({ paths }),
  cloud: (cloud) => ({ cloud: renderCloud(cloud) }),
  dataPlane: (counters) => ({ dataPlane: counters }),
};

function renderLease(lease: LeaseStatus, clock: WallClock) {
  const { key, subnet, attributes, state, since, acquiredAt, expiresAt, problem } = lease;
  const because = problem && { [state === "held" ? "trouble" : "reason"]: problem.message };
  return {
    key,
    subnet,
    attributes,
    state: {
      held: state === "held",
      // Milliseconds since the epoch.
      ...(state === "held" && expiresAt !== undefined
        ? { expiresAt: clock.epochMs(expiresAt) }
        : {}),
      // Whether another host holds it.
      ...(state === "held" ? {} : { taken: state === "taken" }),
      ...because,
      since: clock.time(since),
    },
    acquiredAt: clock.time(acquiredAt),
  };
}

/** A reconciler's last round. */
export function roundJson(report: ReconcilerStatus) {
  const { inSync, changed, problems, problemCount, unseen } = report;
  const more = problemCount - problems.length;
  const rest = more > 0 ? [`and ${more} more`] : [];
  return { inSync, changed, problems: [...problems.map(sentenceOf), ...rest], unseen };
}

const ROLES = {
  "leader": "route writer",
  "own routes": "writes its own route",
  "host": "host",
} as const satisfies Record<CloudStatus["role"], string>;

function renderCloud(cloud: CloudStatus) {
  const { instance, network, credentials, role, place, ownTables, leading } = cloud;
  return {
    instance,
    vpc: network,
    ...(credentials === undefined ? {} : { credentials }),
    role: ROLES[role],
    // The tables that it writes itself, or what the leader says of this host.
    ...(ownTables ? { route: { routeTables: ownTables } } : place ? { route: place } : {}),
    ...(cloud.cluster ? { cluster: renderCluster(cloud.cluster, cloud.leader) } : {}),
    ...(leading ? { writing: { hosts: leading.hosts, ...roundJson(leading.round) } } : {}),
  };
}

function renderCluster(
  { held, orphans, ...cluster }: ClusterStatus,
  { holder, vacantMs = 0 }: LeaderStatus,
) {
  return {
    ...cluster,
    routeWriter: holder,
    ...(vacantMs > 0 ? { vacantSeconds: Math.round(vacantMs / 1_000) } : {}),
    orphans: orphans.map(({ routeTableId, destination, instanceId, state, ageMs }) => ({
      routeTableId,
      destination: String(destination),
      instance: instanceId,
      state,
      seconds: Math.round(ageMs / 1_000),
    })),
    ...(held ? { waitsForApproval: held } : {}),
  };
}

/** Messages by object. */
function reasonsByObject({ problems }: LeftOutStatus): Record<string, string> {
  const reasons = new Map<string, string>();
  for (const { object, message } of problems) {
    const former = reasons.get(object);
    reasons.set(object, former === undefined ? message : `${former}; ${message}`);
  }
  return Object.fromEntries(reasons);
}

/** Converts moments of the monotonic clock by the difference between both clocks now. */
class WallClock {
  readonly #offsetMs = Date.now() - performance.now();

  epochMs(at: Instant): number {
    return Math.round(this.#offsetMs + at);
  }

  time(at: Instant): Time {
    return new Date(this.epochMs(at)).toISOString();
  }

  readonly problem = ({ code, object, message, remedy, since }: Problem): ProblemJson => ({
    code,
    object,
    message,
    ...(remedy === undefined ? {} : { remedy }),
    since: this.time(since),
  });
}

function toPlain(_name: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  // Before JSON escapes quotes and backslashes, which would hide a secret that has some.
  if (typeof value === "string") return redact(value);
  return value instanceof Error ? redact(describeError(value)) : value;
}
