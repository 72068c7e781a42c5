/** Why a fetch failed. @module */

/**
 * The reason alone in an error of fetch, which puts both addresses in front of it: the own port
 * would make each attempt another trouble.
 */
export function fetchReason(text: string): string {
  const reason = text
    .replace(
      /^.*?error sending request(?: from \S+)? for (?:url \([^)]*\)|\S+(?: \([^)]*\))?):?\s*/,
      "",
    )
    .replace(/^client error \(\w+\):\s*/, "");
  return /invalid HTTP|unexpected message from connection|message head/i.test(reason)
    ? "what answers there does not speak HTTP"
    : reason;
}
