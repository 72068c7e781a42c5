// deno-lint-ignore-file no-console -- what it prints is its result
/**
 * `health_attacker.ts <address> <port> <half-open connections> <bad requests>`: what a stranger can
 * do to the health endpoints. Run inside a namespace; prints figures as JSON.
 *
 * @module
 */
const [hostname, port, slow, bad] = [
  Deno.args[0]!,
  ...Deno.args.slice(1).map(Number),
] as [string, number, number, number];
const encode = (text: string) => new TextEncoder().encode(text);

/** Every head that made something throw, and some that might. */
const HOSTS = [
  "[",
  "[::1",
  "]",
  "a b",
  "%",
  "x:y",
  "\u0000",
  "é".repeat(50),
  "http://[",
  "a@b/c?d#e",
];

/** Sends `text` and reads what comes until the end; its first 12 bytes. */
async function exchange(text: string): Promise<string> {
  using connection = await Deno.connect({ hostname, port });
  await connection.write(encode(text));
  const buffer = new Uint8Array(512);
  let answer = "";
  for (;;) {
    const count = await connection.read(buffer);
    if (count === null) return answer.slice(0, 12);
    answer += new TextDecoder().decode(buffer.subarray(0, count));
  }
}

/** How long `/healthz` takes to be right, in ms, tried for 5 s. */
async function probe(): Promise<number> {
  const startedAt = performance.now();
  while (performance.now() - startedAt < 5_000) {
    const trial = exchange("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").catch(() => "");
    const timer = Promise.withResolvers<string>();
    const id = setTimeout(() => timer.resolve(""), 1_000);
    const answer = await Promise.race([trial, timer.promise]);
    clearTimeout(id);
    if (answer === "HTTP/1.1 200") return performance.now() - startedAt;
  }
  return Infinity;
}

const held: Deno.Conn[] = [];
const slowHeads = [
  "",
  "G",
  "GET /status HTTP/1.1\r\nHost: x\r\n",
  "GET /status HTTP/1.1\r\n\r\n", // and never reads the response
  "POST /healthz HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx",
];
for (let index = 0; index < slow; index++) {
  const connection = await Deno.connect({ hostname, port });
  held.push(connection);
  await connection.write(encode(slowHeads[index % slowHeads.length]!)).catch(() => {});
}
const whileHeldMs = await probe();

let answered = 0;
let next = 0;
await Promise.all(Array.from({ length: 16 }, async () => {
  while (next < bad) {
    const index = next++;
    const host = HOSTS[index % HOSTS.length]!;
    const path = ["/healthz", "/status", "/readyz", "//", "*", "/%"][index % 6]!;
    const head = index % 7 === 0
      ? `\u0016\u0003\u0001${host}\r\n\r\n`
      : `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    const answer = await exchange(head).catch(() => "");
    if (/^HTTP\/1\.1 [2345]/.test(answer)) answered++;
  }
}));
const afterwardsMs = await probe();
for (const connection of held) connection.close();
console.log(JSON.stringify({ whileHeldMs, answered, afterwardsMs }));
