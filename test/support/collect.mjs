/**
 * For a program whose memory is measured: at SIGUSR2 it gives back what it does
 * not use. Without that, how much it has is also a matter of when it last
 * looked, and of how busy it has been.
 *
 * Loaded by `NODE_OPTIONS=--import`, before the program.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc")
process.on("SIGUSR2", () => collect())
