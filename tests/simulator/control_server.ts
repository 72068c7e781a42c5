import type { Cloud } from "./cloud.ts";
import {
  closeQuietly,
  type ControlReply,
  type ControlRequest,
  OPERATIONS,
  readLine,
  writeLine,
} from "./control.ts";
import type { CloudSnapshot } from "./model.ts";

/** Serves the calls of control.ts on a Unix socket until disposed; removes the socket then. */
export function serveControl(cloud: Cloud, socketPath: string): AsyncDisposable {
  const listener = Deno.listen({ transport: "unix", path: socketPath });
  Deno.chmodSync(socketPath, 0o600);
  const connections = new Map<Deno.Conn, Promise<void>>();
  const loop = (async () => {
    for await (const connection of listener) {
      connections.set(
        connection,
        serve(cloud, connection).finally(() => connections.delete(connection)),
      );
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      listener.close();
      await loop;
      for (const connection of connections.keys()) closeQuietly(connection);
      await Promise.all(connections.values());
      await Deno.remove(socketPath).catch((error) => {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    },
  };
}

async function serve(cloud: Cloud, connection: Deno.Conn): Promise<void> {
  try {
    const line = await readLine(connection);
    if (line === undefined) return;
    const request = JSON.parse(line) as ControlRequest;
    const reply = request.method === "waitForChange"
      ? await waitForChange(cloud, Number(request.args[0]), connection)
      : perform(cloud, request);
    if (reply) await writeLine(connection, JSON.stringify(reply));
  } catch {
    // The caller went away: there is nobody to tell.
  } finally {
    closeQuietly(connection);
  }
}

function perform(cloud: Cloud, { method, args }: ControlRequest): ControlReply {
  try {
    const name = OPERATIONS.find((each) => each === method);
    if (!name) throw new TypeError(`Cannot call ${method}: there is no such operation`);
    const operation = cloud[name] as (...args: readonly unknown[]) => unknown;
    return { value: operation.apply(cloud, [...args]) ?? null };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

/** Waits for a version above `sinceVersion`; `undefined` if the caller leaves before. */
async function waitForChange(
  cloud: Cloud,
  sinceVersion: number,
  connection: Deno.Conn,
): Promise<{ value: CloudSnapshot } | undefined> {
  cloud.settle();
  if (cloud.version <= sinceVersion) {
    const changed = Promise.withResolvers<"changed">();
    using _subscription = cloud.subscribe(() => changed.resolve("changed"));
    const left = readLine(connection).then(() => "left" as const, () => "left" as const);
    if (await Promise.race([changed.promise, left]) === "left") return undefined;
  }
  return { value: cloud.snapshot() };
}
