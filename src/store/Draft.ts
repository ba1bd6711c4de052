/**
 * Folders that appear whole or not at all: made under a name that carries the
 * maker's pid, synced, and renamed to their place. What a killed maker left is
 * removed by the next one; a live one's is left alone.
 *
 * Called by the embedded server for its data, and by backup and restore.
 */
import { closeSync, fsyncSync, openSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"

/** A path in `folder` where nothing is. Removes abandoned drafts of the same prefix; processes that share a prefix must share a machine. */
export const draftIn = (folder: string, prefix: string): string => {
  for (const name of readdirSync(folder)) {
    if (!name.startsWith(prefix)) continue
    const pid = Number(name.slice(prefix.length))
    // Its own programs may take a moment longer to end.
    if (pid === process.pid || !isAlive(pid)) rmSync(join(folder, name), { recursive: true, force: true, maxRetries: 10 })
  }
  return join(folder, prefix + process.pid)
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** A rename survives a power failure only when the folder that holds the name is synced. */
export const syncFolder = (folder: string): void => {
  const handle = openSync(folder, "r")
  fsyncSync(handle)
  closeSync(handle)
}
