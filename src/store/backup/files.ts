/**
 * A backup's files on their way: copied by their bytes with the SHA-256 of what
 * was written, and proved by reading them back.
 *
 * Every failure is one line for the operator. An abort is noticed within a
 * megabyte and rejects with the signal's reason.
 */
import { createHash } from "node:crypto"
import { type FileHandle, mkdir, open, rm, statfs } from "node:fs/promises"
import { join } from "node:path"
import { draftIn, syncFolder } from "../Draft.ts"
import { OperatorFailure } from "../OperatorConnection.ts"
import type { FileEntry } from "./Manifest.ts"

const chunkBytesMax = 1024 * 1024
/** Files synced at once: most are small, and a disk takes many orders to sync as one. */
const syncsMax = 16

/** Reads a file to its end as it is at that moment. */
const read = async (from: FileHandle, signal: AbortSignal, take: (chunk: Uint8Array) => Promise<unknown> | void): Promise<Pick<FileEntry, "bytes" | "sha256">> => {
  const hash = createHash("sha256")
  const { size } = await from.stat()
  const buffer = Buffer.allocUnsafe(Math.min(size + 1, chunkBytesMax))
  let bytes = 0
  for (;;) {
    signal.throwIfAborted()
    const { bytesRead } = await from.read(buffer)
    if (bytesRead === 0) return { bytes, sha256: hash.digest("hex") }
    const chunk = buffer.subarray(0, bytesRead)
    hash.update(chunk)
    await take(chunk)
    bytes += bytesRead
  }
}

const withFile = async <A>(path: string, flags: "r" | "r+" | "wx", act: (file: FileHandle) => Promise<A>): Promise<A> => {
  const file = await open(path, flags, 0o600)
  try {
    return await act(file)
  } finally {
    await file.close()
  }
}

/** Writes a file that must not be there yet, readable by this user alone. Not yet durable. */
export const copyFile = (from: string, to: string, signal: AbortSignal): Promise<Pick<FileEntry, "bytes" | "sha256">> =>
  withFile(from, "r", (source) => withFile(to, "wx", (target) => read(source, signal, (chunk) => target.writeFile(chunk))))

/** Of a file that somebody else wrote. */
export const measure = (path: string, signal: AbortSignal): Promise<Pick<FileEntry, "bytes" | "sha256">> =>
  withFile(path, "r", (file) => read(file, signal, () => {}))

/** Makes what was copied durable and reads it back. Answers the paths whose bytes are not those that were written. */
export const prove = async (folder: string, folders: ReadonlyArray<string>, files: ReadonlyArray<FileEntry>, signal: AbortSignal): Promise<ReadonlyArray<string>> => {
  const wrong: Array<string> = []
  const left = files.values()
  const worker = async (): Promise<void> => {
    for (const { path, sha256 } of left) {
      const found = await withFile(join(folder, path), "r+", async (file) => {
        await file.sync()
        return await read(file, signal, () => {})
      })
      if (found.sha256 !== sha256) wrong.push(path)
    }
  }
  await Promise.all(Array.from({ length: syncsMax }, worker))
  for (const path of [...folders, ""]) syncFolder(join(folder, path))
  return wrong
}

/** Refuses to begin what would fill the disk: a full one would stop the database beside it. */
export const ensureRoom = async (folder: string, bytes: number): Promise<void> => {
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize < bytes) throw new OperatorFailure(`${folder} has ${mebibytes(bavail * bsize)} left, and ${mebibytes(bytes)} are needed: make room, or name a folder on another disk`)
}

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 1_048_576)} MiB`

/** Makes a draft in `folder`, which is made when missing, and removes it if what fills it fails. The failure is one line. */
export const inDraft = async <A>(folder: string, prefix: string, act: (draft: string) => Promise<A>): Promise<A> => {
  let draft: string | undefined
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    draft = draftIn(folder, prefix)
    await mkdir(draft, { mode: 0o700 })
    return await act(draft)
  } catch (cause) {
    if (draft !== undefined) await rm(draft, { recursive: true, force: true, maxRetries: 10 })
    throw lineOf(cause)
  }
}

const full = new Set(["ENOSPC", "EDQUOT", "EFBIG"])

const lineOf = (cause: unknown): unknown => {
  if (!(cause instanceof Error) || !("syscall" in cause) || !("code" in cause)) return cause
  const { code, message } = cause as NodeJS.ErrnoException
  return new OperatorFailure(full.has(code!) ? `the disk is full: nothing was kept (${message})` : message)
}
