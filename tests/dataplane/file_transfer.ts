/**
 * `receive ADDRESS` takes one stream at port 7100 and prints its SHA-256; `send ADDRESS FILE` sends
 * a file there.
 *
 * @module
 */
import { createHash } from "node:crypto";

const PORT = 7100;

if (import.meta.main) {
  const [mode, hostname, path] = Deno.args;
  if (mode === "receive") {
    using listener = Deno.listen({ hostname: hostname!, port: PORT });
    using connection = await listener.accept();
    const hash = createHash("sha256");
    for await (const chunk of connection.readable) hash.update(chunk);
    Deno.stdout.writeSync(new TextEncoder().encode(`${hash.digest("hex")}\n`));
  } else {
    const file = await Deno.open(path!);
    await file.readable.pipeTo((await connect(hostname!)).writable);
  }
}

/** Connects as soon as somebody listens. */
async function connect(hostname: string): Promise<Deno.TcpConn> {
  for (let tries = 0;; tries++) {
    try {
      return await Deno.connect({ hostname, port: PORT });
    } catch (error) {
      if (tries === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
