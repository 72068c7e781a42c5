/**
 * The remote control of a simulator that runs as a process. It speaks through a Unix socket, whose
 * path is reachable from every network namespace: one connection per call, one line of JSON there
 * and one back.
 *
 * @module
 */
import type { Cloud } from "./cloud.ts";
import type { CloudSnapshot } from "./model.ts";

/** Methods of {@linkcode Cloud} that can be called from outside. */
export const OPERATIONS = [
  "snapshot",
  "routeEntries",
  "requests",
  "addRoute",
  "deleteRoute",
  "repointRoute",
  "fillTable",
  "setQuota",
  "bindVSwitch",
  "unbindVSwitch",
  "addSecondaryCidr",
  "addInstance",
  "releaseInstance",
  "setInstance",
  "setSourceDestCheck",
  "setBehaviour",
  "addFault",
  "removeFault",
  "clearFaults",
  "denyAction",
  "permitAction",
  "setAccessKey",
  "removeAccessKey",
  "setRole",
  "rotateRole",
  "issueOidcToken",
] as const satisfies readonly (keyof Cloud)[];

/** Name of a callable method. */
export type Operation = typeof OPERATIONS[number];

/** One call as it goes through the socket. */
export interface ControlRequest {
  readonly method: Operation | "waitForChange";
  readonly args: readonly unknown[];
}

/** Its outcome. */
export type ControlReply = { readonly value: unknown } | { readonly error: string };

/** The methods of {@linkcode Cloud}, each as a promise. */
export type SimulatorControl =
  & {
    readonly [Name in Operation]: (
      ...args: Parameters<Cloud[Name]>
    ) => Promise<ReturnType<Cloud[Name]>>;
  }
  & {
    /**
     * The state, as soon as its version is above `sinceVersion` (0: at once).
     *
     * @throws `signal.reason` on abort.
     */
    waitForChange(sinceVersion: number, options: { signal: AbortSignal }): Promise<CloudSnapshot>;
  };

/** The control of the simulator that serves `socketPath`. Connects anew for each call. */
export function connectSimulator(socketPath: string): SimulatorControl {
  const methods = OPERATIONS.map((method) => [
    method,
    (...args: unknown[]) => call(socketPath, { method, args }),
  ]);
  return {
    ...Object.fromEntries(methods),
    waitForChange: (sinceVersion: number, options: { signal: AbortSignal }) =>
      call(socketPath, { method: "waitForChange", args: [sinceVersion] }, options),
  } as SimulatorControl;
}

async function call(
  socketPath: string,
  request: ControlRequest,
  options: { signal?: AbortSignal } = {},
): Promise<unknown> {
  const { signal } = options;
  signal?.throwIfAborted();
  const connection = await Deno.connect({ transport: "unix", path: socketPath });
  const onAbort = () => closeQuietly(connection);
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await writeLine(connection, JSON.stringify(request));
    const line = await readLine(connection);
    if (line === undefined) throw new Error(`Cannot ${request.method}: the simulator has ended`);
    const reply = JSON.parse(line) as ControlReply;
    if ("error" in reply) throw new Error(reply.error);
    return reply.value;
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    closeQuietly(connection);
  }
}

/** Writes `text` and a newline. */
export async function writeLine(connection: Deno.Conn, text: string): Promise<void> {
  const bytes = new TextEncoder().encode(`${text}\n`);
  for (let offset = 0; offset < bytes.length;) {
    offset += await connection.write(bytes.subarray(offset));
  }
}

/** The text before the first newline; `undefined` if the connection ends without one. */
export async function readLine(connection: Deno.Conn): Promise<string | undefined> {
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(64 * 1024);
  let text = "";
  while (true) {
    const count = await connection.read(chunk);
    if (count === null) return undefined;
    text += decoder.decode(chunk.subarray(0, count), { stream: true });
    if (text.endsWith("\n")) return text.slice(0, -1);
  }
}

/** Closes a connection that may be closed already. */
export function closeQuietly(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch { /* closed already */ }
}
