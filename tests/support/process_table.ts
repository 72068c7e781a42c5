/**
 * What `/proc` says about processes: who still lives, which namespace each is in.
 *
 * @module
 */

/**
 * When process `pid` was started, in clock ticks after boot (field 22 of proc_pid_stat(5)), or
 * `undefined` if there is no such process. With the pid it names a process for good: pids return.
 */
export function startTicks(pid: number | "self"): number | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  } catch {
    return undefined;
  }
  // Field 2 is the program's name in parentheses and may itself hold blanks and parentheses.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  return state === "Z" || state === "X" ? undefined : Number(fields[19]);
}

/** The running processes as pids, kernel threads included. */
export function listPids(): number[] {
  const pids: number[] = [];
  for (const entry of Deno.readDirSync("/proc")) {
    if (/^\d+$/.test(entry.name)) pids.push(Number(entry.name));
  }
  return pids;
}

/** Inode of the network namespace that process `pid` is in; `undefined` if the process is gone. */
export function networkNamespaceOf(pid: number): number | undefined {
  try {
    return Deno.statSync(`/proc/${pid}/ns/net`).ino ?? undefined;
  } catch {
    return undefined;
  }
}

/** CPU time that process `pid` has used so far, in milliseconds, in steps of 10. */
export function cpuMilliseconds(pid: number): number {
  const text = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  // utime and stime, fields 14 and 15, in ticks of USER_HZ, which is 100 on every architecture.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** Resident memory of process `pid` in bytes (VmRSS of proc_pid_status(5)). */
export function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
  if (!match) throw new Error(`Cannot read the memory use of process ${pid}: it has ended`);
  return Number(match[1]) * 1024;
}

/** Sends `signal` to process `pid`; a process that is gone already is no error. */
export function sendSignal(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) && !/ESRCH/.test(String(error))) throw error;
  }
}
