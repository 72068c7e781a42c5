/**
 * Serves and makes TCP connections, to see which source address arrives. As a program:
 *
 *     connections.ts serve PORT…             answers each connection with the peer's address
 *     connections.ts ask SOURCE ADDRESS PORT   prints the answer, or why there is none
 *
 * @module
 */
import { createConnection } from "node:net";

const [verb, ...args] = Deno.args;
if (verb === "serve") {
  for (const port of args) {
    // Dual stack: one socket for both families.
    const listener = Deno.listen({ hostname: "::", port: Number(port) });
    answerAll(listener);
  }
  say("ready");
} else if (verb === "ask") {
  say(await ask(args[0]!, args[1]!, Number(args[2])));
}

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function answerAll(listener: Deno.TcpListener): Promise<void> {
  for await (using connection of listener) {
    const { hostname } = connection.remoteAddr as Deno.NetAddr;
    try {
      await connection.write(new TextEncoder().encode(hostname.replace(/^::ffff:/, "")));
    } catch { /* the other end has gone */ }
  }
}

/** The address that the server at `host` sees; `from` may be empty. */
function ask(from: string, host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port, ...(from ? { localAddress: from } : {}) });
    let text = "";
    socket.setTimeout(5_000, () => socket.destroy(new Error("no answer")));
    socket.on("data", (data) => text += data);
    socket.on("error", (error) => resolve(`failed: ${error.message}`));
    socket.on("end", () => {
      socket.destroy();
      resolve(text);
    });
  });
}
