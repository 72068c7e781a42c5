/** Paths as Go makes them. @module */

/**
 * Joins and cleans like Go's `path.Join`, which upstream builds its keys with: empty parts are left
 * out, repeated slashes and `.` go away, `..` takes its parent away.
 */
export function joinPath(...parts: readonly string[]): string {
  const joined = parts.filter((part) => part !== "").join("/");
  if (joined === "") return "";
  const rooted = joined.startsWith("/");
  const clean: string[] = [];
  for (const part of joined.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") clean.push(part);
    else if (clean.length > 0 && clean.at(-1) !== "..") clean.pop();
    else if (!rooted) clean.push(part);
  }
  return rooted ? `/${clean.join("/")}` : clean.join("/") || ".";
}
