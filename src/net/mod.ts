/**
 * Network values without I/O: {@linkcode Address}, {@linkcode Prefix}, {@linkcode InterfaceAddress}
 * {@linkcode MacAddress} and {@linkcode Places}. IPv4 and IPv6 share one code path: an address is a family and a
 * number. Values are immutable; `toString()` is canonical, so it serves as a map key.
 *
 * @module
 */
export * from "./address.ts";
export * from "./endpoint.ts";
export * from "./prefix.ts";
export * from "./mac_address.ts";
export * from "./places.ts";
