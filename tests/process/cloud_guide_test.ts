import { labTest } from "../lab/mod.ts";
import { walkThrough } from "./cloud_walk_through.ts";

labTest("two hosts by the guide reach each other, and a restart is not noticed", walkThrough);
