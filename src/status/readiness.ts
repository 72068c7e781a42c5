/**
 * Readiness: typed conditions, each met, doubtful or unmet since some time because of some problems.
 * The daemon is ready while none is unmet.
 *
 * @module
 */
import { Cell, type ReadableCell, sameItems } from "../util/cell.ts";
import type {
  ConditionId,
  ConditionState,
  ConditionStatus,
  Finding,
  Instant,
  Problem,
} from "./model.ts";
import { identityOf, sentenceOf } from "./problems.ts";

/** The conditions of one run. */
export class Readiness {
  readonly #now: () => Instant;
  readonly #statuses = new Cell<readonly ConditionStatus[]>([]);
  readonly #unmet = new Cell<readonly ConditionId[]>([], sameItems);
  readonly #conditions = new Map<ConditionId, Condition>();

  /** @param options.now Monotonic milliseconds. @default {performance.now} */
  constructor({ now = () => performance.now() }: { readonly now?: () => Instant } = {}) {
    this.#now = now;
  }

  /** The state of each condition. */
  get statuses(): ReadableCell<readonly ConditionStatus[]> {
    return this.#statuses;
  }

  /** The conditions that are unmet. */
  get unmet(): ReadableCell<readonly ConditionId[]> {
    return this.#unmet;
  }

  /** The condition `id`, which counts as met until it is set. */
  condition(id: ConditionId): Condition {
    let condition = this.#conditions.get(id);
    if (condition === undefined) {
      condition = new Condition(id, {
        now: this.#now,
        onChange: () => this.#changed(),
      });
      this.#conditions.set(id, condition);
    }
    return condition;
  }

  get ready(): boolean {
    return this.#unmet.value.length === 0;
  }

  /** Whether `id` is not unmet; true for a condition that this run does not have. */
  holds(id: ConditionId): boolean {
    return !this.#unmet.value.includes(id);
  }

  #changed(): void {
    const statuses = Array.from(this.#conditions.values(), ({ status }) => status);
    this.#statuses.set(statuses);
    this.#unmet.set(statuses.filter(({ state }) => state === "unmet").map(({ id }) => id));
  }

  [Symbol.dispose](): void {
    for (const condition of this.#conditions.values()) condition[Symbol.dispose]();
  }
}

/**
 * A condition that was met may be doubtful for a while before it is unmet: neither one failed check
 * nor a repair ends it.
 */
export class Condition implements Disposable {
  readonly #id: ConditionId;
  readonly #options: { readonly now: () => Instant; readonly onChange: () => void };
  #status: ConditionStatus;
  #doubt: { readonly endsAt: Instant; readonly timer: ReturnType<typeof setTimeout> } | undefined;

  constructor(id: ConditionId, options: { now: () => Instant; onChange: () => void }) {
    this.#id = id;
    this.#options = options;
    this.#status = { id, state: "met", since: options.now(), problems: [] };
  }

  get id(): ConditionId {
    return this.#id;
  }

  get status(): ConditionStatus {
    return this.#status;
  }

  get holds(): boolean {
    return this.#status.state !== "unmet";
  }

  /** @param problems What is degraded all the same. */
  met(problems: readonly Finding[] = []): void {
    this.#endDoubt();
    this.#set("met", problems);
  }

  /** @param problems The first one becomes the reason in texts. */
  unmet(...problems: readonly [Finding, ...Finding[]]): void {
    this.#endDoubt();
    this.#set("unmet", problems);
  }

  /**
   * What was met may still be. It becomes unmet after `graceMs`, counted from the first of repeated
   * calls; what is unmet stays so.
   */
  doubtful(problem: Finding, graceMs: number): void {
    if (!this.holds) return this.unmet(problem);
    const now = this.#options.now();
    const endsAt = Math.min(now + graceMs, this.#doubt?.endsAt ?? Infinity);
    this.#endDoubt();
    const timer = setTimeout(() => this.unmet(problem), Math.max(0, endsAt - now));
    this.#doubt = { endsAt, timer };
    this.#set("doubtful", [problem]);
  }

  [Symbol.dispose](): void {
    this.#endDoubt();
  }

  #endDoubt(): void {
    clearTimeout(this.#doubt?.timer);
    this.#doubt = undefined;
  }

  #set(state: ConditionState, findings: readonly Finding[]): void {
    const before = this.#status;
    const now = this.#options.now();
    const since = before.state === state ? before.since : now;
    const problems = dated(findings, before.problems, now);
    if (state === before.state && sameItems(problems, before.problems, isSame)) return;
    this.#status = { id: this.#id, state, since, problems };
    this.#options.onChange();
  }
}

/** `findings` with their times; those of `before` keep theirs. */
function dated(
  findings: readonly (Finding | Problem)[],
  before: readonly Problem[],
  now: Instant,
): readonly Problem[] {
  return findings.map((finding): Problem => {
    if ("since" in finding) return finding;
    const former = before.find((each) => identityOf(each) === identityOf(finding));
    return { ...finding, since: former?.since ?? now };
  });
}

/** Whether two problems read alike. */
function isSame(a: Problem, b: Problem): boolean {
  return identityOf(a) === identityOf(b) && a.message === b.message;
}

/** Why the daemon is not ready: one sentence per unmet condition, the oldest first. */
export function reasonsOf(statuses: readonly ConditionStatus[]): string[] {
  return statuses.filter(({ state }) => state === "unmet")
    .toSorted((one, other) => one.since - other.since)
    .map(({ id, problems }) => `${id}: ${sentenceOf(problems[0]!)}`);
}

/** What is degraded without affecting readiness, one sentence each. */
export function remarksOf(statuses: readonly ConditionStatus[]): string[] {
  return statuses.filter(({ state }) => state === "met")
    .flatMap(({ problems }) => problems.map(sentenceOf));
}
