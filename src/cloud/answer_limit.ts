/** Bounds what a service may send. @module */
import type http from "node:http";

export interface AnswerLimit {
  /** A longer body is refused. */
  readonly maxBytes: number;
  /** Told once, with the reason, as soon as the answer is refused; to end the request then. */
  readonly refuse: (reason: string) => void;
}

/** `100 Continue` and the like: a service sends one or two of them, if any. */
const MAX_INTERIM_ANSWERS = 8;

/**
 * Refuses an answer before it takes memory: one that is too long, that is compressed although
 * nobody asked for it (a megabyte may become a gigabyte), or that begins again and again with
 * interim ones. To be called before anybody else listens to `request`.
 */
export function limitAnswer(request: http.ClientRequest, { maxBytes, refuse }: AnswerLimit): void {
  let interim = 0;
  request.on("information", () => {
    if (++interim === MAX_INTERIM_ANSWERS + 1) refuse("the answer begins with interim ones only");
  });
  request.prependListener("response", (response: http.IncomingMessage) => {
    const encoding = response.headers["content-encoding"] ?? "identity";
    if (encoding !== "identity") {
      refuse("the answer is compressed, which was not asked for");
      response.destroy();
      return;
    }
    const push = response.push;
    let size = 0;
    // Not by a listener for the data, which would set it flowing before its reader listens.
    response.push = function (chunk: Uint8Array | null, ...rest): boolean {
      const before = size;
      size += chunk?.length ?? 0;
      if (size <= maxBytes) return push.call(this, chunk, ...rest);
      if (before <= maxBytes) {
        refuse(`the answer is longer than ${maxBytes} bytes`);
        response.destroy();
      }
      return false;
    };
  });
}
