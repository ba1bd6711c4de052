/**
 * What a backup says of itself, in `manifest.json`: what it holds as of when,
 * who made it, and every file with its SHA-256.
 *
 *     tollgate-<time>/manifest.json
 *                     postgres/…               the embedded server's directory, or
 *                     database.dump            an own server's database, by pg_dump
 *                     secrets.key, demo.json   of the embedded one's DATA_DIR, where there are any
 *
 * Guarantee: a manifest that reads was written whole, by a format that is known,
 * and names no path outside its folder. It is no signature: whoever can write
 * the folder can write another manifest.
 */
import { Option, Schema } from "effect"
import { createHash } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { OperatorFailure } from "../OperatorConnection.ts"

const fileName = "manifest.json"
const format = 1

/** Relative, and nowhere up. */
const Path = Schema.String.check(Schema.isPattern(/^(?!\/)(?!(?:.*\/)?\.{1,2}(?:\/|$))[^\0]+$/))
const Time = Schema.String.check(Schema.isPattern(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/))

const FileEntry = Schema.Struct({
  path: Path,
  bytes: Schema.Int,
  sha256: Schema.String
})

const Manifest = Schema.Struct({
  format: Schema.Literal(format),
  id: Schema.String,
  kind: Schema.Literals(["embedded", "dump"]),
  /** The release that made it. */
  tollgate: Schema.String,
  /** The server's version, and what tells this database cluster from any other. */
  postgres: Schema.String,
  system_id: Schema.String,
  started_at: Time,
  /** What was acknowledged before this moment is in it. */
  as_of: Time,
  ended_at: Time,
  /** Names of the migrations that were applied. */
  migrations: Schema.Array(Schema.String),
  /** Also those that are empty, which some ways of carrying folders about forget. */
  folders: Schema.Array(Path),
  files: Schema.Array(FileEntry)
})

export type FileEntry = typeof FileEntry.Type
export type Manifest = typeof Manifest.Type
/** A manifest without what it says about its files. */
export type About = Omit<Manifest, "format" | "folders" | "files">

const decode = Schema.decodeUnknownOption(Manifest)
const sha256Of = (body: object): string => createHash("sha256").update(JSON.stringify(body)).digest("hex")

/** Durable at return, except for its name in the folder. */
export const writeManifest = (folder: string, { folders, files, ...about }: Omit<Manifest, "format">): void => {
  const body: Manifest = { format, ...about, folders, files }
  writeFileSync(join(folder, fileName), `${JSON.stringify({ sha256: sha256Of(body), ...body }, null, 1)}\n`, { mode: 0o600, flag: "wx", flush: true })
}

export const readManifest = (folder: string): Manifest => {
  const path = join(folder, fileName)
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (cause) {
    throw new OperatorFailure(`${folder} is no backup: ${path} can't be read (${(cause as NodeJS.ErrnoException).code})`)
  }
  const { sha256, ...body } = parse(path, text)
  if (sha256 !== sha256Of(body)) throw damaged(path)
  if (body["format"] !== format) throw new OperatorFailure(`${path} has format ${JSON.stringify(body["format"])}, this version reads ${format}: restore it with the version that made it, ${String(body["tollgate"])}`)
  return Option.getOrThrowWith(decode(body), () => damaged(path))
}

const parse = (path: string, text: string): Record<string, unknown> => {
  try {
    return { ...JSON.parse(text) as object }
  } catch {
    throw damaged(path)
  }
}

/** A file of a backup that is not what was written. */
export const damaged = (path: string): OperatorFailure =>
  new OperatorFailure(`${path} is damaged: nothing was restored; take another backup`)
