/** How the Kubernetes API fails. @module */
import { isObject, type JsonObject } from "../../util/json_object.ts";
import { StoreError } from "../errors.ts";

/** Where the text of a response that is no Status is cut. */
const LONGEST_TEXT = 200;

/** A {@linkcode StoreError} that knows what the API server said. */
export class KubeError extends StoreError {
  override name = "KubeError";
  /** The HTTP status; `undefined` if there was no response. */
  readonly status: number | undefined;
  /** The server's own word, such as `Expired`; also what tells one cause from another. */
  readonly code: string | undefined;
  /** How long the server asks to be left alone. */
  readonly retryAfterMs: number | undefined;
  /** From which page a list may go on all the same. */
  readonly causes: readonly string[];

  constructor(
    what: string,
    { status, code, message, retryAfterMs, causes = [], cause }: {
      readonly status?: number | undefined;
      readonly code?: string | undefined;
      readonly message: string;
      readonly retryAfterMs?: number | undefined;
      readonly causes?: readonly string[];
      readonly cause?: unknown;
    },
  ) {
    super(reasonOf(status), `Cannot ${what}: ${message}`, cause === undefined ? {} : { cause });
    this.status = status;
    this.code = code ?? (status === undefined ? undefined : String(status));
    this.retryAfterMs = retryAfterMs;
    this.causes = causes;
  }

  /** Whether the version that was asked for is older than what the server remembers. */
  get isExpired(): boolean {
    return this.status === 410;
  }

  /** Whether the version is from the future: the server's data are older, as after a restore. */
  get isFromFuture(): boolean {
    return this.causes.includes("ResourceVersionTooLarge") ||
      /Too large resource version/.test(this.message);
  }
}

function reasonOf(status: number | undefined): StoreError["reason"] {
  if (status === 401 || status === 403) return "denied";
  const isRefused = status !== undefined && status >= 400 && status < 500;
  return isRefused && ![408, 409, 410, 429].includes(status) ? "invalid" : "unavailable";
}

/** The error in a response that is none of success: a Status object, or text. */
export function errorOfResponse(
  what: string,
  status: number,
  body: string,
  retryAfter: string | null,
): KubeError {
  const seconds = Number(retryAfter ?? NaN);
  const retryAfterMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1_000 : undefined;
  let object: unknown;
  try {
    object = JSON.parse(body);
  } catch { /* a proxy's words, or those of an overloaded server */ }
  const said = typeof object === "object" ? errorOfStatus(what, object, status) : undefined;
  if (said !== undefined && (said.retryAfterMs !== undefined || retryAfterMs === undefined)) {
    return said;
  }
  const message = said === undefined ? `HTTP ${status}: ${clean(body)}` : said.message;
  return new KubeError(what, { status, message, retryAfterMs });
}

/** The error that a Status object tells of, be it a response or an event of a watch. */
export function errorOfStatus(what: string, object: unknown, fallback = 500): KubeError {
  const { code, reason, message, details } = membersOf(object);
  const { retryAfterSeconds, causes } = membersOf(details);
  return new KubeError(what, {
    status: typeof code === "number" ? code : fallback,
    code: typeof reason === "string" ? reason : undefined,
    message: typeof message === "string" ? clean(message) : `HTTP ${fallback}`,
    retryAfterMs: typeof retryAfterSeconds === "number" ? retryAfterSeconds * 1_000 : undefined,
    causes: Array.isArray(causes)
      ? causes.map((each) => String(membersOf(each)["reason"] ?? ""))
      : [],
  });
}

function membersOf(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

/** Text of the server on one line, and not for ever. */
function clean(text: string): string {
  // deno-lint-ignore no-control-regex
  const line = text.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, " ").trim();
  return line.length > LONGEST_TEXT ? `${line.slice(0, LONGEST_TEXT)}…` : line;
}
