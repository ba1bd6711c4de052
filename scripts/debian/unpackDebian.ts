/**
 * Debian's packages without installing them: unpacked once into .cache, with
 * those they need and this machine lacks. Nothing outside the project changes,
 * and root is not needed: apt works on lists and a cache of its own.
 *
 * Guarantee: the folder appears whole or not at all; of several processes that
 * unpack the same one, the first wins and the others use its folder.
 */
import { execFile } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import { promisify } from "node:util"

export interface Unpacked {
  /** Holds the packages' `usr`, `etc`, … */
  readonly root: string
  /** Where programs started from `root` find the libraries that were unpacked with them: `LD_LIBRARY_PATH`. */
  readonly libraryPath: string
}

const execute = promisify(execFile)

/** The first time it takes seconds and the network; `onFirst` is called before. */
export const unpackDebian = async (name: string, onFirst: () => void = () => {}): Promise<Unpacked> => {
  const root = resolve(".cache", name)
  if (!existsSync(root)) {
    onFirst()
    await unpack(name, root)
  }
  return { root, libraryPath: librariesIn(root).join(":") }
}

const unpack = async (name: string, root: string): Promise<void> => {
  mkdirSync(resolve(".cache"), { recursive: true })
  const fresh = mkdtempSync(`${root}.`)
  chmodSync(fresh, 0o755)
  try {
    const apt = join(fresh, "apt")
    for (const folder of ["lists/partial", "cache/archives/partial"]) mkdirSync(join(apt, folder), { recursive: true })
    const own = [
      "-q", "-o", `Dir::State::Lists=${apt}/lists`, "-o", `Dir::Cache=${apt}/cache`, "-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none",
      "-o", "Debug::NoLocking=true", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"
    ]
    await execute("apt-get", [...own, "update"])
    await execute("apt-get", [...own, "install", "--download-only", "--no-install-recommends", "--yes", name], { cwd: apt })
    const archives = join(apt, "cache/archives")
    for (const file of readdirSync(archives)) if (file.endsWith(".deb")) await execute("dpkg-deb", ["-x", join(archives, file), fresh])
    rmSync(apt, { recursive: true })
    renameSync(fresh, root)
  } catch (cause) {
    rmSync(fresh, { recursive: true, force: true })
    if (!existsSync(root)) throw new Error(`${name} is needed and can't be unpacked: install Debian's package ${name}`, { cause })
  }
}

/** Some packages keep theirs one folder deeper. */
const librariesIn = (root: string): ReadonlyArray<string> =>
  ["usr/lib", "lib"].flatMap((folder) => foldersIn(join(root, folder)))
    .filter((folder) => folder.endsWith("-linux-gnu"))
    .flatMap((folder) => [folder, ...foldersIn(folder)])

const foldersIn = (folder: string): ReadonlyArray<string> =>
  existsSync(folder) ? readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => join(folder, name)) : []
