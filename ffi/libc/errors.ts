/** Names and texts of error numbers, and the error of a failed libc call. @module */
import { getSystemErrorMessage, getSystemErrorName } from "node:util";

/** Linux uses the same number for ENOTSUP; the kernel and its manual pages say EOPNOTSUPP. */
const EOPNOTSUPP = 95;

/** `ENETUNREACH` for 101; `errno 4242` for a number without a name. */
export function errnoName(errno: number): string {
  if (errno === EOPNOTSUPP) return "EOPNOTSUPP";
  const name = orUndefined(() => getSystemErrorName(-errno));
  return name?.startsWith("E") ? name : `errno ${errno}`;
}

/** `network is unreachable` for 101, with the name where there is no text. */
export function errnoText(errno: number): string {
  if (errno === EOPNOTSUPP) return "operation not supported";
  const text = orUndefined(() => getSystemErrorMessage(-errno));
  return text && !text.startsWith("Unknown") ? text : errnoName(errno);
}

/** Deno and Node differ in whether an unknown number throws. */
function orUndefined(get: () => string | undefined): string | undefined {
  try {
    return get();
  } catch {
    return undefined;
  }
}

/** A libc call failed. */
export class SystemCallError extends Error {
  override name = "SystemCallError";
  /** The positive error number. */
  readonly errno: number;
  /** Its name, such as `EPERM`. */
  readonly code: string;
  /** The function, such as `setsockopt`. */
  readonly call: string;

  constructor(call: string, errno: number, options?: ErrorOptions) {
    super(`System call ${call} failed: ${errnoText(errno)}`, options);
    this.call = call;
    this.errno = errno;
    this.code = errnoName(errno);
  }
}
