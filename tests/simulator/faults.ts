import { matchesAction } from "./credentials.ts";
import {
  type Fault,
  type FaultConfig,
  faultConfig,
  type FaultEffect,
  parseConfig,
} from "./config.ts";
import type { RequestRecord } from "./model.ts";
import type { SeededRandom } from "./random.ts";

/** What a rule can be matched against. */
export type FaultSubject = Pick<
  RequestRecord,
  "service" | "action" | "accessKeyId" | "source" | "params"
>;

interface Rule {
  readonly fault: Fault;
  readonly sinceMs: number;
  seen: number;
  hits: number;
}

/**
 * Rules of misbehaviour, tried in the order in which they were added; the first that fires
 * decides. The effects:
 *
 * - `drop`: the connection ends before anything is done;
 * - `hang`: nothing is done and no answer comes;
 * - `delay`, `delayAnswer`: the call is carried out late, or at once and answered late;
 * - `slowTask`: accepted, and what it began, such as `Modifying`, takes that long;
 * - `truncate`: carried out, and half of the answer is sent;
 * - `performThenDrop`, `performThenError`: carried out, and the outcome is hidden;
 * - `html`, `empty`: what a proxy in between answers; nothing is done;
 * - `error`: refused with `status` and, where given, `code` (a body without `Code` otherwise).
 */
export class FaultPlan {
  readonly #rules = new Map<number, Rule>();
  readonly #context: { readonly random: SeededRandom; readonly nowMs: () => number };
  #nextId = 1;

  constructor(context: { random: SeededRandom; nowMs: () => number }) {
    this.#context = context;
  }

  /** Adds a rule and returns its id. */
  add(input: FaultConfig): number {
    const fault = parseConfig(faultConfig, input);
    const id = this.#nextId++;
    this.#rules.set(id, { fault, sinceMs: this.#context.nowMs(), seen: 0, hits: 0 });
    return id;
  }

  remove(id: number): void {
    this.#rules.delete(id);
  }

  clear(): void {
    this.#rules.clear();
  }

  /** The effect that befalls a request, if any. */
  decide(subject: FaultSubject): FaultEffect | undefined {
    for (const rule of this.#rules.values()) {
      const { fault } = rule;
      const ageMs = this.#context.nowMs() - rule.sinceMs;
      if (ageMs >= (fault.durationMs ?? Infinity) || !matches(fault, subject)) continue;
      if (rule.seen++ < fault.skip || rule.hits >= (fault.times ?? Infinity)) continue;
      if (this.#context.random.next() >= fault.probability) continue;
      rule.hits++;
      return fault.effect;
    }
    return undefined;
  }
}

function matches({ match }: Fault, subject: FaultSubject): boolean {
  const actions = match.action === undefined ? ["*"] : [match.action].flat();
  return actions.some((pattern) => matchesAction(pattern, subject.action)) &&
    (match.service ?? subject.service) === subject.service &&
    (match.accessKeyId ?? subject.accessKeyId) === subject.accessKeyId &&
    (match.source ?? subject.source) === subject.source &&
    (match.routeTableId === undefined || names(subject.params, match.routeTableId));
}

/** Whether one of the parameters, or of a batch's entries, names the table. */
function names(params: FaultSubject["params"], routeTableId: string): boolean {
  return Object.entries(params)
    .some(([name, value]) => /^(.*\.)?RouteTableId$/.test(name) && value === routeTableId);
}
