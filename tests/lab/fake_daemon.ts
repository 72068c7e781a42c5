/**
 * Stands in for the daemon in the lab's own tests: tells the service manager what its arguments
 * say, then waits. `status=TEXT` and `ready` send, `print=TEXT` logs, `exit=CODE` ends.
 *
 * @module
 */
import { openNotifier } from "../../src/service_manager/notify.ts";

using notifier = openNotifier(Deno.env.get("NOTIFY_SOCKET"));
const write = (text: string) => Deno.stderr.writeSync(new TextEncoder().encode(text));
write(`env ${JSON.stringify(Deno.env.toObject())}\nargs ${JSON.stringify(Deno.args)}\n`);
for (const arg of Deno.args) {
  const [verb, value = ""] = arg.split("=");
  if (verb === "status") notifier.status(value);
  if (verb === "ready") {
    write("Ready: the subnet is usable\n");
    notifier.ready();
  }
  if (verb === "print") write(`${value}\n`);
  if (verb === "exit") Deno.exit(Number(value));
}
setTimeout(() => {}, 600_000);
