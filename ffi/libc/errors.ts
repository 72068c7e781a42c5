import { getSystemErrorMessage, getSystemErrorName } from "node:util";

/** `ENETUNREACH` for 101; `errno 4242` for a number without a name. */
export function errnoName(errno: number): string {
  try {
    return getSystemErrorName(-errno) ?? `errno ${errno}`;
  } catch {
    return `errno ${errno}`;
  }
}

/** `network is unreachable` for 101, with the name where there is no text. */
export function errnoText(errno: number): string {
  try {
    return getSystemErrorMessage(-errno) ?? errnoName(errno);
  } catch {
    return errnoName(errno);
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
