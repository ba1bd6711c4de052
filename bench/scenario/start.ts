/**
 * Start: how long from the command to the log's `listening`, with a database
 * that is initialised. One start that counts for nothing makes the database,
 * builds, and warms the file cache; then `npm start` and the program itself take
 * turns, so that both see the same machine.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import type { Options } from "../rig/options.ts"
import { type Report, spread } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"

const startMs = 120_000

const ways = { "npm start": ["npm", "start"], "node dist/main.js": [process.execPath, "dist/main.js"] } as const

export const start = async (rig: Rig, { rounds }: Options): Promise<Report> => {
  const dataDir = rig.folder()
  await timeOf(ways["npm start"], dataDir)
  const times = { "npm start": new Array<number>(), "node dist/main.js": new Array<number>() }
  for (let round = 0; round < rounds; round++) {
    for (const name of ["npm start", "node dist/main.js"] as const) times[name].push(await timeOf(ways[name], dataDir))
  }
  return {
    figures: [
      spread("npm start to listening", "ms", times["npm start"], { atMost: 1_000 }),
      spread("the program alone", "ms", times["node dist/main.js"])
    ],
    parameters: { rounds }
  }
}

/** Milliseconds to `listening`; the gateway is stopped again when this returns. */
const timeOf = async ([command, ...args]: readonly [string, ...ReadonlyArray<string>], dataDir: string): Promise<number> => {
  const began = performance.now()
  const child = spawn(command, args, { env: { PATH: process.env["PATH"], HOME: process.env["HOME"], PORT: "0", DATA_DIR: dataDir }, stdio: ["ignore", "ignore", "pipe"] })
  const limit = setTimeout(() => child.kill("SIGKILL"), startMs)
  let complaint = ""
  for await (const line of createInterface({ input: child.stderr })) {
    complaint = line
    if (!line.includes(`"msg":"listening"`)) continue
    const ms = performance.now() - began
    const ended = once(child, "exit")
    // The gateway alone: npm would end before it.
    process.kill((JSON.parse(line) as { readonly pid: number }).pid, "SIGINT")
    child.stderr.resume()
    await ended
    clearTimeout(limit)
    return ms
  }
  throw new Error(`${command} ended before it listened: ${complaint}`)
}
