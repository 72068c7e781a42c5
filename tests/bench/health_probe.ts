// deno-lint-ignore-file no-console -- what it prints is its purpose
/**
 * `health_probe.ts URL MILLISECONDS`: asks again and again, a few milliseconds after each answer,
 * and prints the longest time that an answer took, in milliseconds.
 *
 * @module
 */
const [url, milliseconds] = Deno.args;
for (let i = 0; i < 20; i++) await (await fetch(url!)).text();
let longest = 0;
for (const until = performance.now() + Number(milliseconds); performance.now() < until;) {
  const askedAt = performance.now();
  await (await fetch(url!)).text();
  longest = Math.max(longest, performance.now() - askedAt);
  await new Promise((resolve) => setTimeout(resolve, 2));
}
console.log(longest.toFixed(1));
