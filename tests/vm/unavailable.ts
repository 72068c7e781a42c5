/** No virtual machine can be had here, for a reason that is no fault of the project. */
export class VmUnavailableError extends Error {
  override name = "VmUnavailableError";
}
