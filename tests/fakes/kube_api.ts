/**
 * An API server of Kubernetes in memory, for faults and scale; what it has in common with a real
 * one is held by the contract that both go through (tests/store/kube_contract_test.ts), and its
 * errors by what a 1.36 said (tests/fixtures/kube_1_36.json).
 *
 * @module
 */
import fixtures from "../fixtures/kube_1_36.json" with { type: "json" };

/** Any object. */
// deno-lint-ignore no-explicit-any -- objects of any kind are merged and handed on
type KubeJson = any;

/** What it does instead of responding well. */
export type Fault =
  | { readonly status: number; readonly text: string; readonly retryAfter?: number }
  /** Takes the request, and says nothing. */
  | "silence"
  /** Ends the body in the middle. */
  | "cut";

/** A change in the history. */
interface Change {
  readonly version: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly path: string;
  readonly object: KubeJson;
}

/** A watch that is open. */
interface Watch {
  readonly collection: string;
  readonly partial: boolean;
  readonly matches: (object: KubeJson) => boolean;
  send(line: unknown): void;
  end(): void;
}

const encoder = new TextEncoder();
const CUT_BYTES = 700;

/** The server. */
export class FakeKubeApi implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #objects = new Map<string, KubeJson>();
  readonly #history: Change[] = [];
  readonly #watches = new Set<Watch>();
  readonly #stop = new AbortController();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #version = 100;
  #floor = 0;
  /** What was asked for, oldest first: `GET /api/v1/nodes?watch=1…`. */
  readonly requests: string[] = [];
  /** As on 1.34 and later; without it such a request is refused. */
  hasWatchList = true;
  /** Says what goes wrong with a request. */
  fault: ((request: Request, url: URL) => Fault | undefined) | undefined;
  /** The tokens that are good; any, if there are none. */
  readonly tokens = new Set<string>();
  /** Seconds by which its clock is ahead. */
  clockAheadSeconds = 0;
  /** After a restore, a version of the future is silent in a watch. */
  readonly #held = new Set<() => void>();

  constructor() {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {}, signal: this.#stop.signal },
      (request) => this.#respond(request),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.endWatches();
    for (const timer of this.#timers) clearTimeout(timer);
    for (const release of this.#held) release();
    this.#stop.abort();
    await this.#server.finished;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  get watchCount(): number {
    return this.#watches.size;
  }

  /** Ends all watches, as a server that is rolled out. */
  endWatches(): void {
    for (const watch of [...this.#watches]) watch.end();
  }

  /** Sends a bookmark to all watches. */
  bookmark(): void {
    for (const watch of this.#watches) watch.send(this.#bookmark());
  }

  /** Forgets the history up to now. */
  compact(): void {
    this.#floor = this.#version;
    this.#history.length = 0;
  }

  /** Goes back to what it was at `version`, as etcd restored from a snapshot. */
  restore(to: { readonly version: number; readonly objects: ReadonlyMap<string, KubeJson> }): void {
    this.#objects.clear();
    for (const [path, object] of to.objects) this.#objects.set(path, object);
    this.#version = to.version;
    this.#history.length = 0;
    this.#floor = 0;
  }

  backup(): { readonly version: number; readonly objects: ReadonlyMap<string, KubeJson> } {
    return { version: this.#version, objects: new Map(this.#objects) };
  }

  /** A request of a test, past all faults and counts. */
  admin(method: string, path: string, body?: unknown): Promise<Response> {
    const url = new URL(path, this.url);
    const payload = body === undefined ? undefined : JSON.stringify(body);
    return this.#serve(method, url, payload, new Headers());
  }

  object(path: string): KubeJson {
    return this.#objects.get(path);
  }

  async #respond(request: Request): Promise<Response> {
    const url = new URL(request.url);
    this.requests.push(`${request.method} ${url.pathname}${url.search}`);
    const body = request.body === null ? undefined : await request.text();
    const fault = this.fault?.(request, url);
    if (fault === "silence") {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#held.add(resolve);
      request.signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      return new Response(null, { status: 500 });
    }
    if (typeof fault === "object") {
      const headers = fault.retryAfter === undefined
        ? {}
        : { "retry-after": String(fault.retryAfter) };
      return new Response(fault.text, { status: fault.status, headers });
    }
    const token = request.headers.get("authorization")?.replace("Bearer ", "");
    if (this.tokens.size > 0 && !this.tokens.has(token ?? "")) return status(fixtures.unauthorized);
    const response = await this.#serve(request.method, url, body, request.headers);
    const seconds = this.clockAheadSeconds * 1_000;
    response.headers.set("date", new Date(Date.now() + seconds).toUTCString());
    return fault === "cut" ? new Response(cutOff(response.body!)) : response;
  }

  async #serve(
    method: string,
    url: URL,
    body: string | undefined,
    headers: Headers,
  ): Promise<Response> {
    await Promise.resolve();
    const parts = url.pathname.replace(/\/status$/, "").split("/").filter(Boolean);
    // /api/v1/[namespaces/x/]plural[/name], or /apis/group/version/…
    const base = parts[0] === "api" ? 2 : 3;
    const namespaced = parts[base] === "namespaces" && parts.length > base + 2;
    const at = namespaced ? base + 2 : base;
    const collection = "/" + parts.slice(0, at + 1).join("/");
    const name = parts[at + 1];
    const isStatus = url.pathname.endsWith("/status");
    const partial = (headers.get("accept") ?? "").includes("as=PartialObjectMetadata");
    const path = `${collection}/${name}`;
    const present = this.#objects.get(path);
    if (method === "GET" && name === undefined) return this.#list(collection, url, partial);
    if (method === "GET") {
      return present === undefined ? notFound(parts[at]!, name!) : json(present);
    }
    const given: KubeJson = body === undefined ? undefined : JSON.parse(body);
    if (method === "POST") return this.#create(collection, parts[at]!, given);
    if (present === undefined) return notFound(parts[at]!, name!);
    if (method === "DELETE") {
      const wanted = given?.preconditions?.resourceVersion;
      if (wanted !== undefined && wanted !== present.metadata.resourceVersion) {
        return status(fixtures.conflict);
      }
      this.#commit("DELETED", path, present);
      return json({ kind: "Status", status: "Success" });
    }
    if (method === "PUT") {
      const { resourceVersion } = given.metadata;
      if (resourceVersion !== undefined && resourceVersion !== present.metadata.resourceVersion) {
        return status(fixtures.conflict);
      }
      const { uid, creationTimestamp } = present.metadata;
      return json(this.#commit("MODIFIED", path, {
        ...given,
        metadata: { ...given.metadata, uid, creationTimestamp },
      }));
    }
    return this.#patch(path, present, given, isStatus);
  }

  #create(collection: string, plural: string, given: KubeJson): Response {
    const path = `${collection}/${given.metadata.name}`;
    if (this.#objects.has(path)) return status(fixtures.alreadyExists);
    const { spec } = given;
    const kind = plural === "nodes" ? { apiVersion: "v1", kind: "Node" } : {};
    const created = this.#commit("ADDED", path, {
      ...kind,
      ...given,
      ...(plural === "nodes" ? { spec: withCidrs(spec), status: given.status ?? {} } : {}),
      metadata: {
        ...given.metadata,
        uid: crypto.randomUUID(),
        creationTimestamp: `${new Date().toISOString().slice(0, 19)}Z`,
      },
    });
    return json(created, 201);
  }

  #patch(path: string, present: KubeJson, given: KubeJson, isStatus: boolean): Response {
    const { uid } = given.metadata ?? {};
    if (uid !== undefined && uid !== present.metadata.uid) return status(fixtures.immutableUid);
    const annotations = Object.entries(given.metadata?.annotations ?? {});
    if (annotations.some(([, value]) => value !== null && typeof value !== "string")) {
      return status(fixtures.badAnnotation);
    }
    const former = present.spec?.podCIDR;
    const cidr = given.spec?.podCIDR;
    if (!isStatus && former && cidr && cidr !== former) return status(fixtures.immutableCidr);
    const merged = mergeStrategically(
      present,
      isStatus
        ? { metadata: given.metadata, status: given.status }
        : { ...given, status: undefined },
    );
    if (merged.spec !== undefined) merged.spec = withCidrs(merged.spec);
    if (JSON.stringify(merged) === JSON.stringify(present)) return json(present);
    return json(this.#commit("MODIFIED", path, merged));
  }

  /** Gives the object the next version and tells the watches. */
  #commit(type: Change["type"], path: string, object: KubeJson): KubeJson {
    const version = ++this.#version;
    const written = {
      ...object,
      metadata: { ...object.metadata, resourceVersion: String(version) },
    };
    if (type === "DELETED") this.#objects.delete(path);
    else this.#objects.set(path, written);
    this.#history.push({ version, type, path, object: written });
    for (const watch of this.#watches) this.#tell(watch, { version, type, path, object: written });
    return written;
  }

  #tell(watch: Watch, { type, path, object }: Change): void {
    if (!path.startsWith(`${watch.collection}/`) || !watch.matches(object)) return;
    watch.send({ type, object: watch.partial ? metadataOf(object) : object });
  }

  #list(collection: string, url: URL, partial: boolean): Response {
    const query = url.searchParams;
    const matches = matcherOf(query);
    const asked = query.get("resourceVersion") ?? "";
    const found = [...this.#objects].filter(([path, object]) =>
      path.startsWith(`${collection}/`) && matches(object)
    ).map(([, object]) => object);
    if (query.get("watch") === "1") return this.#watch(collection, query, matches, partial, found);
    if (asked !== "" && Number(asked) > this.#version) return status(fixtures.tooLarge);
    const limit = Number(query.get("limit") ?? 0) || Infinity;
    const [tokenVersion, from] = (query.get("continue") ?? `${this.#version}:0`).split(":");
    if (Number(tokenVersion) < this.#floor) return status(fixtures.expiredContinue);
    const page = found.slice(Number(from), Number(from) + limit);
    const isMore = Number(from) + page.length < found.length;
    return json({
      kind: partial ? "PartialObjectMetadataList" : "List",
      metadata: {
        resourceVersion: String(this.#version),
        ...(isMore ? { continue: `${tokenVersion}:${Number(from) + page.length}` } : {}),
      },
      items: page.map((object) => partial ? metadataOf(object) : object),
    });
  }

  #watch(
    collection: string,
    query: URLSearchParams,
    matches: (object: KubeJson) => boolean,
    partial: boolean,
    found: readonly KubeJson[],
  ): Response {
    const isWatchList = query.get("sendInitialEvents") === "true";
    if (isWatchList && !this.hasWatchList) return status(fixtures.noWatchList);
    const asked = Number(query.get("resourceVersion") ?? 0);
    let watch: Watch | undefined;
    let isOpen = true;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        watch = {
          ...{ collection, partial, matches },
          // In two pieces: chunks are cut anywhere.
          send(line) {
            const bytes = encoder.encode(JSON.stringify(line) + "\n");
            const half = Math.floor(bytes.length / 2);
            for (const piece of [bytes.slice(0, half), bytes.slice(half)]) {
              // Its reader may go between the two.
              if (isOpen) controller.enqueue(piece);
            }
          },
          end: () => {
            this.#watches.delete(watch!);
            if (isOpen) controller.close();
            isOpen = false;
          },
        };
        if (isWatchList) {
          for (const object of found) {
            watch.send({ type: "ADDED", object: partial ? metadataOf(object) : object });
          }
          watch.send(this.#bookmark({ "k8s.io/initial-events-end": "true" }));
        } else if (asked < this.#floor) {
          watch.send({ type: "ERROR", object: fixtures.expired });
          return watch.end();
        } else if (asked <= this.#version) {
          for (const change of this.#history) {
            if (change.version > asked) this.#tell(watch, change);
          }
        }
        this.#watches.add(watch);
        const seconds = Number(query.get("timeoutSeconds") ?? 1_800);
        const timer = setTimeout(() => watch!.end(), Math.min(seconds * 1_000, 2 ** 31 - 1));
        this.#timers.add(timer);
      },
      cancel: () => {
        isOpen = false;
        watch!.end();
      },
    });
    return new Response(body, { headers: { "content-type": "application/json" } });
  }

  #bookmark(annotations?: Record<string, string>) {
    return {
      type: "BOOKMARK",
      object: { kind: "Node", metadata: { resourceVersion: String(this.#version), annotations } },
    };
  }
}

/** The first bytes of a body. */
function cutOff(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  let left = CUT_BYTES;
  return body.pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        controller.enqueue(chunk.slice(0, left));
        left -= chunk.length;
        if (left <= 0) controller.terminate();
      },
    }),
  );
}

function json(value: unknown, code = 200): Response {
  return new Response(JSON.stringify(value), {
    status: code,
    headers: { "content-type": "application/json" },
  });
}

function status(object: { readonly code: number }): Response {
  return json(object, object.code);
}

function notFound(plural: string, name: string): Response {
  return status({ ...fixtures.notFound, message: `${plural} "${name}" not found` } as never);
}

function metadataOf({ metadata }: KubeJson): KubeJson {
  return { kind: "PartialObjectMetadata", apiVersion: "meta.k8s.io/v1", metadata };
}

function matcherOf(query: URLSearchParams): (object: KubeJson) => boolean {
  const [label, value] = (query.get("labelSelector") ?? "").split("=");
  const name = query.get("fieldSelector")?.replace("metadata.name=", "");
  return ({ metadata }) =>
    (!label || metadata.labels?.[label] === value) && (!name || metadata.name === name);
}

function withCidrs(spec: KubeJson = {}): KubeJson {
  const cidrs = spec.podCIDRs ?? (spec.podCIDR ? [spec.podCIDR] : undefined);
  return cidrs === undefined ? spec : { ...spec, podCIDR: cidrs[0], podCIDRs: cidrs };
}

/** Maps are merged, null deletes, and conditions go by their type. */
function mergeStrategically(present: KubeJson, patch: KubeJson, key = ""): KubeJson {
  if (key === "conditions" && Array.isArray(patch)) {
    const byType = new Map((present ?? []).map((each: KubeJson) => [each.type, each]));
    for (const each of patch) {
      byType.set(each.type, { ...byType.get(each.type) as object, ...each });
    }
    return [...byType.values()];
  }
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const merged: KubeJson = { ...present };
  for (const [name, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    if (value === null) delete merged[name];
    else merged[name] = mergeStrategically(merged[name], value, name);
  }
  return merged;
}
