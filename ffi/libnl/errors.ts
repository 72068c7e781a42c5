/** How netlink requests fail. @module */
import { errnoName, errnoText } from "../libc/errors.ts";

/** The kernel refused a netlink request. */
export class NetlinkError extends Error {
  override name = "NetlinkError";
  /** What was tried, such as `Cannot add route 10.5.7.0/24 via 192.0.2.7`. */
  readonly operation: string;
  /** The name of the error number, such as `ENETUNREACH`. */
  readonly code: string;
  /** The positive error number. */
  readonly errno: number;
  /** The kernel's own explanation (NLMSGERR_ATTR_MSG), where it gave one. */
  readonly detail: string | undefined;

  constructor(operation: string, errno: number, detail?: string, options?: ErrorOptions) {
    super(`${operation}: ${errnoText(errno)}${detail ? ` (${detail})` : ""}`, options);
    this.operation = operation;
    this.errno = errno;
    this.code = errnoName(errno);
    this.detail = detail;
  }
}

/** A libnl function failed to send or receive: the outcome of the request is unknown. */
export class LibnlError extends Error {
  override name = "LibnlError";
  /** The function, such as `nl_recv`. */
  readonly call: string;
  /** The positive NLE_* code, <netlink/errno.h>. */
  readonly code: number;

  constructor(call: string, code: number, text: string, options?: ErrorOptions) {
    super(`Cannot talk to the kernel over netlink: ${call} failed: ${text}`, options);
    this.call = call;
    this.code = code;
  }
}

/** The kernel's table changed while it was dumped (NLM_F_DUMP_INTR): the list may be wrong. */
export class DumpInterruptedError extends Error {
  override name = "DumpInterruptedError";
}

/** The socket's receive buffer overflowed (ENOBUFS): messages were lost. */
export class ReceiveOverflowError extends Error {
  override name = "ReceiveOverflowError";
}
