import { ApiServer, type ApiService } from "./api.ts";
import type { Cloud } from "./cloud.ts";
import { type HttpServer, type HttpServerOptions, serveHttp } from "./http_server.ts";
import { MetadataServer } from "./metadata.ts";

/** Longest that `setTimeout` can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Opens the ways into one cloud, and closes all of them when disposed. */
export class Listeners implements AsyncDisposable {
  readonly #api: ApiServer;
  readonly #metadata: MetadataServer;
  readonly #servers: HttpServer[] = [];
  readonly #pacer: Disposable;

  constructor(cloud: Cloud) {
    this.#api = new ApiServer(cloud);
    this.#metadata = new MetadataServer(cloud);
    this.#pacer = pace(cloud);
  }

  /** Listens for calls to `services`. Returns the endpoint. */
  openApi(services: readonly ApiService[], options: HttpServerOptions): string {
    return this.#open(options, (request) => this.#api.handle(services, request));
  }

  /** Listens for metadata requests, all of them of `instanceId` where that is given. */
  openMetadata(options: HttpServerOptions & { readonly instanceId?: string }): string {
    return this.#open(options, (request) => this.#metadata.handle(request, options.instanceId));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pacer[Symbol.dispose]();
    await Promise.all(this.#servers.map((server) => server[Symbol.asyncDispose]()));
  }

  #open(options: HttpServerOptions, handler: Parameters<typeof serveHttp>[1]): string {
    const server = serveHttp(options, handler);
    this.#servers.push(server);
    return server.url;
  }
}

/** Settles the cloud whenever something is due, so that changes are seen without a request. */
function pace(cloud: Cloud): Disposable {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const arm = () => {
    clearTimeout(timer);
    const dueAtMs = cloud.nextDueAtMs();
    if (dueAtMs === undefined) return;
    const waitMs = Math.min(MAX_TIMER_MS, Math.max(1, dueAtMs - cloud.nowMs()));
    timer = setTimeout(() => {
      cloud.settle();
      arm();
    }, waitMs);
  };
  const subscription = cloud.subscribe(arm);
  arm();
  return {
    [Symbol.dispose]() {
      subscription[Symbol.dispose]();
      clearTimeout(timer);
    },
  };
}
