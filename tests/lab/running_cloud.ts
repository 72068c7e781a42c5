import { delay } from "../../src/util/time.ts";
import type { CloudConfig, ProcessConfig } from "../simulator/config.ts";
import { connectSimulator, type SimulatorControl } from "../simulator/control.ts";
import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import { type LabCloudOptions, routerState } from "./cloud.ts";
import { API_ADDRESS, type LabPlan, METADATA_ADDRESS } from "./plan.ts";
import { denoEnvironment, REPOSITORY } from "./program.ts";
import type { VpcRouter } from "./vpc_router.ts";

/** Options of {@linkcode RunningCloud.start}. */
export interface StartCloudOptions {
  readonly config: CloudConfig;
  readonly tls?: LabCloudOptions["tls"];
  readonly plan: LabPlan;
  readonly router: VpcRouter;
  /** Where its config, its socket and its log go. */
  readonly directory: string;
  readonly signal: AbortSignal;
}

/**
 * The simulated cloud as a process inside the router's namespace, so that hosts find metadata and
 * API where they are on ECS. The router follows what the cloud says is in force.
 */
export class RunningCloud implements AsyncDisposable {
  /** The cloud's console: its state, what an operator does, what was asked of it. */
  readonly control: SimulatorControl;
  readonly #process: LoggedProcess;
  readonly #options: StartCloudOptions;
  readonly #ending = new AbortController();
  readonly #feed: Promise<void>;
  #versionInForce = 0;

  private constructor(
    process: LoggedProcess,
    control: SimulatorControl,
    options: StartCloudOptions,
  ) {
    this.#process = process;
    this.control = control;
    this.#options = options;
    this.#feed = this.#follow();
    this.#feed.catch(() => {/* reported by whoever waits, and on disposal */});
  }

  /** Starts the process; returns when it answers and the router does what it says. */
  static async start(options: StartCloudOptions): Promise<RunningCloud> {
    const { directory, router, signal, tls } = options;
    const api = tls ? `https://${API_ADDRESS}:443` : `${API_ADDRESS}:80`;
    const configFile = `${directory}/simulator.json`;
    const config: ProcessConfig = {
      listen: {
        vpc: api,
        ecs: api,
        sts: api,
        metadata: `${METADATA_ADDRESS}:80`,
      },
      ...(tls ? { tls: { certificateFile: tls.certFile, keyFile: tls.keyFile } } : {}),
      controlSocket: `${directory}/simulator.sock`,
      cloud: options.config,
    };
    await Deno.writeTextFile(configFile, JSON.stringify(config), { mode: 0o600 });
    await using stack = new AsyncDisposableStack();
    const process = stack.use(startLogged(
      router.namespace.command(Deno.execPath(), [
        ...["run", "-A", "--cached-only", `${REPOSITORY}tests/simulator/main.ts`],
        configFile,
      ]),
      {
        title: "simulator",
        logFile: `${directory}/simulator.log`,
        env: denoEnvironment(),
        holdStdin: true,
      },
    ));
    await process.waitForLine(/^ready$/, { signal });
    const cloud = stack.use(
      new RunningCloud(process, connectSimulator(config.controlSocket), options),
    );
    await cloud.inForce({ signal });
    stack.move();
    return cloud;
  }

  /** Returns when the router does what the cloud says now, or said a little later. */
  async inForce(options: { signal: AbortSignal }): Promise<void> {
    const { version } = await this.control.snapshot();
    let failure: { readonly error: unknown } | undefined;
    this.#feed.catch((error) => failure = { error });
    while (this.#versionInForce < version) {
      await delay(5, options);
      if (failure) throw failure.error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort(new DOMException("The lab is closed", "AbortError"));
    try {
      await this.#feed;
    } finally {
      await this.#process.kill();
    }
  }

  async #follow(): Promise<void> {
    const { router, plan } = this.#options;
    const { signal } = this.#ending;
    try {
      for (let version = 0;;) {
        const snapshot = await this.control.waitForChange(version, { signal });
        await router.apply(routerState(snapshot, plan), { signal });
        ({ version } = snapshot);
        this.#versionInForce = version;
      }
    } catch (error) {
      if (signal.aborted) return;
      throw new Error(`The router no longer follows the cloud:\n${this.#process.tail()}`, {
        cause: error,
      });
    }
  }
}
