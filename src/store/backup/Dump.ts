/**
 * An own PostgreSQL's database as one file, and back, by pg_dump and pg_restore
 * of PATH. A dump is one moment of the database, seen while others write.
 *
 * pg_dump reads servers of its own major version and older; one that is too old
 * is refused before it begins. The password reaches the programs by their
 * environment: command lines are for everybody to see.
 */
import { spawn } from "node:child_process"
import { OperatorFailure } from "../OperatorConnection.ts"

type Tool = "pg_dump" | "pg_restore"

/** Neither roles nor rights come along: what is loaded belongs to whoever loads it. */
const bare = ["--no-owner", "--no-privileges", "--no-password"]

/** Writes the whole database to `file`; not yet durable. */
export const dump = async (databaseUrl: string, serverMajor: number, file: string, signal: AbortSignal): Promise<void> => {
  await ensureTool("pg_dump", serverMajor)
  await run("pg_dump", databaseUrl, ["--format=custom", ...bare, `--file=${file}`], signal)
}

/** Makes what `file` holds in an empty database: all of it, or nothing. */
export const load = async (databaseUrl: string, dumpMajor: number, file: string, signal: AbortSignal): Promise<void> => {
  await ensureTool("pg_restore", dumpMajor)
  await run("pg_restore", databaseUrl, ["--single-transaction", ...bare, file], signal)
}

const ensureTool = async (tool: Tool, major: number): Promise<void> => {
  const get = `install the client programs of PostgreSQL ${major} or newer (Debian: postgresql-client-${major}) and put them first in PATH`
  const text = await ended(tool, ["--version"]).catch(() => {
    throw new OperatorFailure(`there is no ${tool} in PATH: ${get}`)
  })
  const [, found] = /\(PostgreSQL\) (\d+)/.exec(text) ?? []
  if (Number(found) < major) throw new OperatorFailure(`${tool} in PATH is of PostgreSQL ${found}, the database of ${major}: ${get}`)
}

const run = (tool: Tool, databaseUrl: string, args: ReadonlyArray<string>, signal: AbortSignal): Promise<string> => {
  const [, before, password, after] = /^(\w+:\/\/[^/?#:]*):([^/?#]*)(@.*)$/s.exec(databaseUrl) ?? []
  if (password === undefined) return ended(tool, [...args, `--dbname=${databaseUrl}`], process.env, signal)
  return ended(tool, [...args, `--dbname=${before}${after}`], { ...process.env, PGPASSWORD: decodeURIComponent(password) }, signal)
}

/** What the program printed; a failure carries what it complained about last. */
const ended = (tool: Tool, args: ReadonlyArray<string>, env = process.env, signal?: AbortSignal): Promise<string> =>
  new Promise((done, fail) => {
    const child = spawn(tool, args, { env, stdio: ["ignore", "pipe", "pipe"], ...(signal === undefined ? {} : { signal }) })
    let output = ""
    let complaint = ""
    child.stdout.on("data", (chunk) => { output += chunk })
    child.stderr.on("data", (chunk) => { complaint = (complaint + chunk).slice(-4_096) })
    // After an abort, too, only its end says that it touches nothing any more.
    child.once("error", (cause) => { complaint ||= cause.message })
    child.once("close", (code) => {
      if (signal?.aborted) fail(signal.reason)
      else if (code === 0) done(output)
      else fail(new OperatorFailure(`${tool} failed: ${complaint.trim().split("\n").find((line) => line.includes("error:")) ?? complaint.trim()}`))
    })
  })
