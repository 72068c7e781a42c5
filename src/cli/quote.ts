/**
 * Shows a word of a command line in an error.
 *
 * @module
 */

/** In quotes, on one line, short, and without what may be the credentials of a URL. */
export function quote(text: string): string {
  const bare = text.replace(/^([a-z]+:\/\/)?[^]*@/i, "$1…@");
  return JSON.stringify(bare.length > 100 ? `${bare.slice(0, 100)}…` : bare);
}
