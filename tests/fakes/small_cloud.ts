/**
 * A cloud that differs from Alibaba's wherever the seam allows it: its routes carry no marks and have
 * names of their own, so that two may share a destination; they can be inserted and deleted, but
 * not changed, one at a time; and each write is accepted first and may fail afterwards.
 *
 * @module
 */
import type { Backend, Host } from "../../src/backends/mod.ts";
import { CloudApiError, type Reaction } from "../../src/cloud/routes/cloud_error.ts";
import type { CloudRoutesConfig } from "../../src/cloud/routes/config.ts";
import type {
  CallOptions,
  Cloud,
  CloudInstance,
  CloudRoute,
  NewRoute,
  Operation,
  RouteApi,
  WriteOptions,
} from "../../src/cloud/routes/provider.ts";
import { Silence } from "../../src/cloud/routes/silence.ts";
import { ConfigError } from "../../src/errors.ts";
import type { Lease, LeaseAttributes } from "../../src/lease/lease.ts";
import type { Prefix } from "../../src/net/mod.ts";
import { type CloudBackendFacts, openCloudRuntime } from "../../src/runtime/cloud.ts";
import { backendEntry } from "../../src/runtime/entry.ts";
import type { BackendEntry } from "../../src/runtime/runtime.ts";
import { delay } from "../../src/util/time.ts";

const TYPE = "small-cloud";
const TABLE = "the-network";
const NETWORK_ID = "network-1";
/** How long the service takes for a write that it has accepted. */
const OPERATION_MS = 4_000;

/** A route as the service keeps it. */
export interface SmallRoute {
  readonly name: string;
  readonly destination: Prefix;
  readonly hop: string;
}

/** What somebody asked for. */
export interface SmallWrite {
  readonly op: "insert" | "delete";
  readonly name: string;
  readonly by: string;
}

/** The service, with the instances of one network. */
export class SmallCloud {
  readonly routes = new Map<string, SmallRoute>();
  readonly instances = new Set<string>();
  readonly writes: SmallWrite[] = [];
  quota = 100;
  /** Writes that are under way. */
  busy = 0;
  /** So many of the next writes are accepted and fail then. */
  failing = 0;
  /** By the tokens of their calls. */
  readonly #operations = new Map<string, Promise<void>>();

  /** Starts a write; a repeated token is the same write. */
  write(write: SmallWrite, token: string, carryOut: () => void): Promise<void> {
    const known = this.#operations.get(token);
    if (known !== undefined) return known;
    this.writes.push(write);
    const operation = this.#operate(carryOut);
    operation.catch(() => {});
    this.#operations.set(token, operation);
    return operation;
  }

  async #operate(carryOut: () => void): Promise<void> {
    this.busy++;
    try {
      await delay(OPERATION_MS, { signal: new AbortController().signal });
      if (this.failing > 0) {
        this.failing--;
        throw refusal("INTERNAL_ERROR", { do: "retry", cause: "busy", budgetSeconds: 600 });
      }
      carryOut();
    } finally {
      this.busy--;
    }
  }
}

function refusal(code: string, reaction: Reaction): CloudApiError {
  return new CloudApiError(`Cannot write a route: ${code}`, {
    action: "routes.write",
    code,
    reaction,
    status: 200,
  });
}

/** The service as one instance calls it. */
class SmallRoutes implements RouteApi {
  readonly words = {
    waitingForRate: "Waiting for the small cloud's rate limit",
    service: "the small cloud",
    raiseQuota: "ask for more routes",
    rights: "the small cloud's manual",
  };
  readonly hasMarks = false;
  readonly pageEntries = 500;
  readonly defaultQuota = 100;
  readonly writesAtOnce = 3;
  readonly #service: SmallCloud;
  readonly #caller: string;

  constructor(service: SmallCloud, caller: string) {
    this.#service = service;
    this.#caller = caller;
  }

  readTable = () => {
    const entries = this.#list();
    return Promise.resolve({ entries, used: entries.length });
  };

  readOwn: RouteApi["readOwn"] = (_table, { instanceId }) =>
    Promise.resolve(this.#list().filter((entry) => entry.instanceId === instanceId));

  read: RouteApi["read"] = (_table, destination) =>
    Promise.resolve(this.#list().filter((entry) => entry.destination.equals(destination)));

  count = () => Promise.resolve(this.#service.routes.size);

  async create(
    { destination, instanceId: hop }: NewRoute,
    { signal, beforeSend, token }: WriteOptions & { readonly token: string },
  ): Promise<Operation> {
    await beforeSend?.({ signal });
    const { routes, instances } = this.#service;
    const name = `${String(destination).replaceAll(/[./]/g, "-")}-${hop}`;
    if (routes.has(name)) throw refusal("alreadyExists", { do: "exists" });
    if (!instances.has(hop)) {
      throw refusal("notFound", { do: "fatal", about: "next-hop", advice: "start the instance" });
    }
    return this.#operation({ op: "insert", name }, token, () => {
      if (routes.has(name)) throw refusal("alreadyExists", { do: "exists" });
      if (routes.size >= this.#service.quota) {
        throw refusal("QUOTA_EXCEEDED", { do: "quota", advice: this.words.raiseQuota });
      }
      routes.set(name, { name, destination, hop });
    });
  }

  async remove(
    { entryId: name = "" }: CloudRoute,
    { signal, beforeSend }: WriteOptions,
  ): Promise<Operation> {
    await beforeSend?.({ signal });
    const { routes } = this.#service;
    if (!routes.has(name)) throw refusal("notFound", { do: "gone" });
    return this.#operation(
      { op: "delete", name },
      crypto.randomUUID(),
      () => void routes.delete(name),
    );
  }

  #operation(
    write: Omit<SmallWrite, "by">,
    token: string,
    carryOut: () => void,
  ): Operation {
    const done = this.#service.write({ ...write, by: this.#caller }, token, carryOut);
    return {
      finished: ({ signal }: CallOptions) =>
        Promise.race([
          done,
          new Promise<never>((_, reject) =>
            signal.addEventListener("abort", () => reject(signal.reason), { once: true })
          ),
        ]),
    };
  }

  #list(): CloudRoute[] {
    return [...this.#service.routes.values()].map(({ name, destination, hop }) => ({
      routeTableId: TABLE,
      destination,
      instanceId: hop,
      entryId: name,
      state: "ready",
      isStatic: true,
      hops: [hop],
    }));
  }
}

/** The cloud as the daemon on an instance knows it. */
function openCloud(service: SmallCloud, instanceId: string): Cloud {
  return {
    instance: { instanceId, networkInterfaceId: `${instanceId}-nic0`, vpcId: NETWORK_ID },
    routes: new SmallRoutes(service, instanceId),
    clock: {},
    credentialsSource: undefined,
    silence: new Silence(),
    instanceExists: (id) => Promise.resolve(service.instances.has(id)),
    connect: () =>
      Promise.resolve({
        routeTableIds: [TABLE],
        tablesFor: () => Promise.resolve({ routeTableIds: [TABLE], otherTableIds: [] }),
      }),
    listTables: () => Promise.resolve([TABLE]),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** The backend, whose leases name their instance. */
const backend: Backend<CloudRoutesConfig, CloudBackendFacts<CloudInstance>> = {
  type: TYPE,
  families: [4],
  parseConfig: () => ({
    config: {
      resyncSeconds: 60,
      sourceDestCheck: "disable",
      overflow: "none",
      routeGraceSeconds: 600,
    },
    warnings: [],
  }),
  changesKernel: () => false,
  overheadBytes: () => 0,
  announce(_config, { publicIp }: Host, { instanceId }): LeaseAttributes {
    if (publicIp === undefined) throw new ConfigError("the host", ["an IPv4 address is missing"]);
    return { publicIp, backendType: "", backendData: { vm: instanceId } };
  },
  planHost({ facts: { routeTableIds, instanceId }, own: { subnet: { ipv4 } } }) {
    return {
      cloudRoutes: ipv4 === undefined ? [] : routeTableIds.map((routeTableId) => ({
        routeTableId,
        destination: ipv4,
        instanceId,
      })),
    };
  },
};

function readClaim({ attributes: { backendData } }: Pick<Lease, "attributes">) {
  const { vm } = (backendData ?? {}) as { readonly vm?: string };
  return typeof vm === "string"
    ? { instanceId: vm, networkInterfaceId: `${vm}-nic0`, vpcId: NETWORK_ID }
    : undefined;
}

/** The table's entry for the daemon on an instance. */
export function smallCloudEntry(service: SmallCloud, instanceId: string): BackendEntry {
  const definition = {
    name: TYPE,
    mayLead: true,
    readClaim,
    open: () => Promise.resolve(openCloud(service, instanceId)),
  };
  return backendEntry(backend, {
    open: (context, config) => openCloudRuntime(definition, context, config),
  });
}
