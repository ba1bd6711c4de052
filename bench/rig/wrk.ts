/**
 * The load: wrk, the cheapest client there is for closed loops, installed or
 * unpacked from Debian's package. Its scripts are in bench/load; what they need
 * they read from the environment, and they print one JSON line at the end.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { unpackDebian } from "../../scripts/debian/unpackDebian.ts"

export interface Load {
  readonly requests: number
  readonly seconds: number
  /** Connections refused or broken, answers that were late or not below 400. */
  readonly errors: number
  readonly p50Us: number
  readonly p99Us: number
  /** What a script counted beside. */
  readonly counted: Readonly<Record<string, number>>
}

export interface LoadOptions {
  readonly url: string
  readonly script: string
  readonly connections: number
  readonly seconds: number
  readonly headers?: Readonly<Record<string, string>>
  readonly env?: Readonly<Record<string, string>>
}

/** How to start a program that may be only unpacked. */
export interface Tool {
  readonly path: string
  readonly env: Readonly<Record<string, string>>
  readonly version: string
}

export const findTool = async (name: string, versionFlag = "-v"): Promise<Tool> => {
  const versionOf = (path: string, env: Tool["env"]): Promise<string | undefined> => new Promise((done) => {
    // wrk and nginx tell theirs on standard error, and wrk ends with 1 then.
    execFile(path, [versionFlag], { env: { ...process.env, ...env } }, (error, stdout, stderr) =>
      done(error !== null && typeof error.code !== "number" ? undefined : /\d+\.\d+(?:\.\d+)?/.exec(stdout + stderr)?.[0]))
  })
  for (const path of [name, `/usr/sbin/${name}`]) {
    const version = await versionOf(path, {})
    if (version !== undefined) return { path, env: {}, version }
  }
  const { root, libraryPath } = await unpackDebian(name)
  const env = { LD_LIBRARY_PATH: libraryPath }
  for (const folder of ["usr/bin", "usr/sbin"]) {
    const path = join(root, folder, name)
    const version = await versionOf(path, env)
    if (version !== undefined) return { path, env, version }
  }
  throw new Error(`${name} was unpacked but does not run here`)
}

let found: Promise<Tool> | undefined

/** One thread: it shares its core with the upstream. */
export const wrk = async ({ url, script, connections, seconds, headers = {}, env = {} }: LoadOptions): Promise<Load> => {
  const tool = await (found ??= findTool("wrk"))
  const flags = Object.entries(headers).flatMap(([name, value]) => ["-H", `${name}: ${value}`])
  const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "10s", "-s", `bench/load/${script}`, ...flags, url]
  const output = await new Promise<string>((done, fail) => {
    execFile(tool.path, args, { env: { ...process.env, ...tool.env, ...env }, timeout: (seconds + 30) * 1_000 }, (error, stdout, stderr) =>
      error === null ? done(stdout) : fail(new Error(`wrk ${args.join(" ")}: ${stderr || error.message}`)))
  })
  const line = output.split("\n").find((text) => text.startsWith("{"))
  if (line === undefined) throw new Error(`wrk told no result:\n${output}`)
  return JSON.parse(line) as Load
}

export interface KeyLoadOptions {
  readonly url: string
  readonly keysFile: string
  readonly body: string
  readonly connections: number
  readonly warmUpSeconds: number
  readonly seconds: number
  /** After the measured time the load goes on for this long with calls that cost nothing; 0: it stops, and what was under way has no answer. */
  readonly restSeconds?: number
}

/** Calls with many keys in turn. `counted` has `warm`, `measured` and `idle`: each of the first two was answered when this resolves, unless `restSeconds` is 0. */
export const wrkByKeys = (options: KeyLoadOptions): { readonly beginMs: number; readonly ended: Promise<Load> } => {
  const { url, keysFile, body, connections, warmUpSeconds, seconds, restSeconds = 2 } = options
  const beginMs = Date.now() + warmUpSeconds * 1_000
  const ended = wrk({
    url, script: "keys.lua", connections, seconds: warmUpSeconds + seconds + restSeconds,
    env: { BODY: body, KEYS: keysFile, REST: "/health", BEGIN_MS: String(beginMs), STOP_MS: String(beginMs + seconds * 1_000) }
  }).then((load) => {
    if (restSeconds > 0 && load.counted["idle"] === 0) throw new Error("the load did not come to its end in time: what was asked and what was answered can't be compared")
    return flawless(load, "calls by keys")
  })
  ended.catch(() => {}) // Whoever waits for it sees it.
  return { beginMs, ended }
}

/** A load that had errors measured something else. */
export const flawless = (load: Load, what: string): Load => {
  if (load.errors > 0 || load.requests === 0) throw new Error(`${what}: ${load.requests} requests, ${load.errors} errors`)
  return load
}
