/**
 * The simulator as a process: `deno run -A tests/simulator/main.ts <config.json>`, to be started
 * in the network namespace whose addresses the config names. Prints `ready` once it listens. Ends
 * on SIGTERM or SIGINT, and when its standard input ends, so that it never outlives its starter.
 *
 * @module
 */
import type { ApiService } from "./api.ts";
import { Cloud } from "./cloud.ts";
import { parseConfig, processConfig } from "./config.ts";
import { serveControl } from "./control_server.ts";
import type { HttpServerOptions } from "./http_server.ts";
import { Listeners } from "./listeners.ts";

type Config = ReturnType<typeof readConfig>;

function readConfig(path: string) {
  return parseConfig(processConfig, JSON.parse(Deno.readTextFileSync(path)));
}

async function main(configPath: string): Promise<void> {
  const config = readConfig(configPath);
  const cloud = new Cloud(config.cloud);
  await using listeners = new Listeners(cloud);
  openApis(listeners, config);
  listeners.openMetadata(parseAddress(config.listen.metadata, config));
  await using _control = serveControl(cloud, config.controlSocket);
  const ended = Promise.withResolvers<void>();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(signal, () => ended.resolve());
  }
  drain(Deno.stdin.readable).then(() => ended.resolve());
  await Deno.stdout.write(new TextEncoder().encode("ready\n"));
  await ended.promise;
}

/** One listener per address; services that share an address share it. */
function openApis(listeners: Listeners, config: Config): void {
  const services: readonly ApiService[] = ["vpc", "ecs", "sts"];
  for (const [address, shared] of Map.groupBy(services, (service) => config.listen[service])) {
    listeners.openApi(shared, parseAddress(address, config));
  }
}

/** `address:port` or `[address]:port`, with `https://` before it for TLS. */
function parseAddress(text: string, config: Config): HttpServerOptions {
  const match = /^(?:(https?):\/\/)?(\[[^\]]+\]|[^:]+):(\d+)$/.exec(text);
  if (!match) throw new TypeError(`Cannot listen on "${text}": it is not address:port`);
  const options = { hostname: match[2]!.replaceAll(/[[\]]/g, ""), port: Number(match[3]) };
  if (match[1] !== "https") return options;
  if (!config.tls) throw new TypeError(`Cannot listen on ${text}: tls is not configured`);
  const { certificateFile, keyFile } = config.tls;
  const tls = { cert: Deno.readTextFileSync(certificateFile), key: Deno.readTextFileSync(keyFile) };
  return { ...options, tls };
}

async function drain(stream: ReadableStream<Uint8Array>): Promise<void> {
  try {
    for await (const _chunk of stream) { /* only its end matters */ }
  } catch { /* an unreadable input has ended, too */ }
}

if (import.meta.main) {
  const [configPath, ...rest] = Deno.args;
  if (configPath === undefined || rest.length > 0) {
    await Deno.stderr.write(new TextEncoder().encode("usage: main.ts <config.json>\n"));
    Deno.exit(2);
  }
  await main(configPath);
  Deno.exit(0); // a pending read of standard input would keep the process alive
}
