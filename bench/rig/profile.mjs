/**
 * Loaded into the gateway by `--profile`: SIGUSR2 begins a CPU profile, the next
 * one ends and writes it to $PROFILE_FOLDER, for Chromium's developer tools.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { Session } from "node:inspector"
import { join } from "node:path"

const session = new Session()
session.connect()
session.post("Profiler.enable")
let isRunning = false
process.on("SIGUSR2", () => {
  isRunning = !isRunning
  if (isRunning) return void session.post("Profiler.start")
  session.post("Profiler.stop", (_, { profile }) => {
    mkdirSync(process.env.PROFILE_FOLDER, { recursive: true })
    writeFileSync(join(process.env.PROFILE_FOLDER, `gateway-${process.pid}.cpuprofile`), JSON.stringify(profile))
  })
})
