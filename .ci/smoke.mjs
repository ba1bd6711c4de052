/**
 * What a newcomer does first, as one test: `npm start` in an empty data
 * directory, the demo call with the key of demo.json, SIGINT. Exits 0 when the
 * gateway answered the call and ended cleanly, else says what went wrong.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

/** A first start installs, builds and makes a database. */
const startMs = 180_000
const stopMs = 30_000

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  await once(server, "close")
  return port
}

const hasEnded = ({ exitCode, signalCode }) => exitCode !== null || signalCode !== null

/** Asks until there is an answer; the gateway's end or the time limit ends it. */
const eventually = async (what, npm, ask) => {
  for (const deadline = Date.now() + startMs; Date.now() < deadline; await sleep(100)) {
    if (hasEnded(npm)) throw new Error(`the gateway ended with ${npm.signalCode ?? npm.exitCode} before ${what}`)
    const answer = await Promise.resolve().then(ask).catch(() => undefined)
    if (answer !== undefined) return answer
  }
  throw new Error(`no ${what} within ${startMs / 1000} s`)
}

const callDemo = async ({ base_url, api_key, agents }) => {
  const agent = agents.find(({ ticker }) => ticker === "ECHO") ?? agents[0]
  const response = await fetch(`${base_url}/v1/proxy/${agent.ticker}`, {
    method: "POST",
    headers: { authorization: `Bearer ${api_key}`, "content-type": "application/json" },
    body: JSON.stringify({ prompt: "hello" })
  })
  const text = await response.text()
  if (response.status !== 200 || JSON.parse(text).output !== "hello") throw new Error(`the demo call answered ${response.status} ${text}`)
}

/** Tells the gateway alone: npm would end by the signal too, and hide the gateway's exit code. */
const stop = async (npm, pid) => {
  const ended = once(npm, "exit")
  process.kill(pid, "SIGINT")
  const [code, signal] = await Promise.race([ended, sleep(stopMs, [`nothing within ${stopMs / 1000} s`], { ref: false })])
  if (code !== 0) throw new Error(`after SIGINT the gateway ended with ${signal ?? code}`)
}

const folder = mkdtempSync(join(tmpdir(), "tollgate-smoke-"))
const port = await freePort()
const { DATABASE_URL, REDIS_URL, HOST, PUBLIC_URL, ...env } = process.env
const npm = spawn("npm", ["start"], { detached: true, env: { ...env, PORT: String(port), DATA_DIR: folder, LOG_LEVEL: "info" }, stdio: ["ignore", "inherit", "pipe"] })
let log = ""
npm.stderr.on("data", (chunk) => {
  process.stderr.write(chunk)
  log += chunk
})
try {
  await eventually("/health", npm, async () => (await fetch(`http://127.0.0.1:${port}/health`)).ok || undefined)
  await callDemo(await eventually("demo.json", npm, () => JSON.parse(readFileSync(join(folder, "demo.json"), "utf8"))))
  await stop(npm, Number(/"pid":(\d+)[^\n]*"listening"/.exec(log)[1]))
  console.log("smoke: npm start, the demo call and SIGINT work")
} catch (cause) {
  console.log(`smoke: ${cause.message}`)
  process.exitCode = 1
  if (!hasEnded(npm)) process.kill(-npm.pid, "SIGKILL")
} finally {
  rmSync(folder, { recursive: true, force: true, maxRetries: 10 })
}
