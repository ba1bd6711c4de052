/**
 * How long a start takes from the command to the log's `listening`, with a
 * database that is initialised: `node bench/start.mjs`. One start that counts
 * for nothing makes the database, builds, and warms the file cache; then `npm
 * start` and the program itself take turns, so that both see the same machine.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { cpus, tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const rounds = 10
const startMs = 120_000
const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = mkdtempSync(join(tmpdir(), "tollgate-bench-"))
const { DATABASE_URL, REDIS_URL, HOST, PUBLIC_URL, LOG_LEVEL, ...env } = process.env

const ways = { "npm start": ["npm", "start"], "node dist/main.js": [process.execPath, "dist/main.js"] }

/** Milliseconds to `listening`; the gateway is stopped again when this returns. */
const start = async ([command, ...args]) => {
  const began = performance.now()
  const child = spawn(command, args, { cwd: root, env: { ...env, PORT: "0", DATA_DIR: folder }, stdio: ["ignore", "ignore", "pipe"] })
  const limit = setTimeout(() => child.kill("SIGKILL"), startMs)
  for await (const line of createInterface({ input: child.stderr })) {
    if (!line.includes(`"msg":"listening"`)) continue
    const ms = performance.now() - began
    const ended = once(child, "exit")
    // The gateway alone: npm would end before it.
    process.kill(JSON.parse(line).pid, "SIGINT")
    child.stderr.resume()
    await ended
    clearTimeout(limit)
    return ms
  }
  throw new Error(`${command} ended before it listened`)
}

try {
  await start(ways["npm start"])
  const times = Object.fromEntries(Object.keys(ways).map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) for (const [name, way] of Object.entries(ways)) times[name].push(await start(way))
  for (const [name, list] of Object.entries(times)) {
    const sorted = list.sort((a, b) => a - b).map(Math.round)
    console.log(`${name.padEnd(18)} min ${sorted[0]} ms, median ${sorted[rounds >> 1]} ms, max ${sorted.at(-1)} ms`)
  }
  console.log(JSON.stringify({ scenario: "start", rounds, node: process.version, cpu: cpus()[0]?.model, cores: cpus().length }))
} finally {
  rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
}
