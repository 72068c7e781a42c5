/**
 * The Worker of the packet path. It blocks in poll(2) and takes no messages once it runs; it is
 * steered through `shared_state.ts`.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { runPacketLoop } from "./packet_loop.ts";
import type { WorkerMessage, WorkerSetup } from "./shared_state.ts";

self.onmessage = ({ data }: MessageEvent<WorkerSetup>) => {
  const tell = (message: WorkerMessage) => self.postMessage(message);
  runPacketLoop(data, tell);
  tell({ type: "stopped" });
  self.close();
};
