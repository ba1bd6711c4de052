/**
 * A lock between processes: a directory, because making one is atomic.
 *
 * Guarantee: of several processes one at a time is inside `act`. The holder
 * touches the directory every second, so that a lock whose holder was killed is
 * taken over 10 s later; a pid would say nothing across containers that share
 * the tree. A holder that is suspended for longer than that may be joined by
 * another: what is done inside must bear it (npm and renames do).
 */
import { mkdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

const beatMs = 1_000
const staleMs = 10_000

export const withLock = async (path, act) => {
  mkdirSync(dirname(path), { recursive: true })
  for (let waits = 0; !taken(path); waits++) {
    if (waits === 5) console.error("Waiting for another start to finish its setup…")
    removeStale(path)
    await sleep(200)
  }
  const beat = setInterval(() => {
    try {
      utimesSync(path, new Date(), new Date())
    } catch {} // Taken over, or its directory was cleaned away: nothing left to keep alive.
  }, beatMs)
  try {
    return await act()
  } finally {
    clearInterval(beat)
    rmSync(path, { recursive: true, force: true })
  }
}

const taken = (path) => {
  try {
    mkdirSync(path)
    return true
  } catch (cause) {
    if (cause.code === "EEXIST") return false
    throw cause
  }
}

/** The rename lets one of several waiters remove it; the others find nothing. */
const removeStale = (path) => {
  try {
    if (Date.now() - statSync(path).mtimeMs < staleMs) return
    const aside = `${path}.${process.pid}`
    renameSync(path, aside)
    rmSync(aside, { recursive: true, force: true })
  } catch (cause) {
    if (cause.code !== "ENOENT") throw cause
  }
}
