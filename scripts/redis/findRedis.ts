/**
 * Where a Redis server is on this machine: REDIS_SERVER_BIN, else `redis-server`
 * or `valkey-server` of PATH, else the one in the project's cache, else Debian's
 * package, unpacked into the cache once (no root, nothing is installed). On
 * machines without apt only the first two.
 *
 * A program counts when it runs and tells its version: it may be there and miss
 * a library.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { unpackDebian } from "../debian/unpackDebian.ts"

export interface RedisProgram {
  readonly bin: string
  /** What it needs to be started with. */
  readonly env: NodeJS.ProcessEnv
  readonly version: string
}

/** One line an operator can act on: there is no Redis to be had here. */
export class RedisFailure extends Error {
  override readonly name = "RedisFailure"
}

const oldestMajor = 6

/** Takes some milliseconds; the first time on a machine without Redis, seconds and the network. */
export const findRedis = async (onProgress: (line: string) => void = () => {}): Promise<RedisProgram> => {
  const wanted = process.env["REDIS_SERVER_BIN"]
  if (wanted) return await programAt(wanted) ?? fail(`REDIS_SERVER_BIN=${JSON.stringify(wanted)} is no Redis server that runs here`)
  for (const bin of ["redis-server", "valkey-server"]) {
    const found = await programAt(bin)
    if (found !== undefined) return found
  }
  return await unpacked(onProgress) ?? fail("there is no Redis server here: install redis-server or valkey-server, or set REDIS_SERVER_BIN or REDIS_URL")
}

const fail = (line: string): never => {
  throw new RedisFailure(line)
}

const unpacked = async (onProgress: (line: string) => void): Promise<RedisProgram | undefined> => {
  if (process.platform !== "linux") return undefined
  const found = await unpackDebian("redis-server", () => onProgress("Unpacking a Redis server (first time, about 5 s)…")).catch(() => undefined)
  return found && programAt(join(found.root, "usr/bin/redis-server"), { ...process.env, LD_LIBRARY_PATH: found.libraryPath })
}

const programAt = (bin: string, env: NodeJS.ProcessEnv = process.env): Promise<RedisProgram | undefined> =>
  new Promise((done) => {
    execFile(bin, ["--version"], { env, timeout: 5_000 }, (error, stdout) => {
      const [, version] = /\bv=((\d+)[.\d]*)/.exec(stdout) ?? []
      done(error === null && version !== undefined && Number.parseInt(version) >= oldestMajor ? { bin, env, version } : undefined)
    })
  })
