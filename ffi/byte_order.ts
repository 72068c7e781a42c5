/** Whether this machine is little-endian: netlink headers and integers are in host order. */
export const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
