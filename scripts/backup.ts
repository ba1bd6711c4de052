/**
 * `npm run backup [-- <folder>]`: a new folder in it (default: `backups` in
 * DATA_DIR) with all that a restore needs. The gateway may run. What went wrong
 * leaves nothing that looks like a backup.
 */
import { constants, setPriority } from "node:os"
import { join, resolve } from "node:path"
import { newId } from "../src/kernel/Ids.ts"
import { OperatorFailure, command, interruption } from "../src/store/OperatorConnection.ts"
import { backUp } from "../src/store/backup/Backup.ts"
import { version } from "../src/version.ts"

const usage = "usage: npm run backup [-- <folder>]"

const read = ([folder, ...rest]: ReadonlyArray<string>): string | undefined => {
  if (rest.length > 0 || folder?.startsWith("-")) throw new OperatorFailure(usage)
  return folder === undefined ? undefined : resolve(folder)
}

await command("backup", read, async (settings, folder = join(settings.dataDir, "backups")) => {
  // Calls come first.
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL)
  const { path, manifest } = await backUp(settings, {
    id: newId(), folder, tollgate: version, entry: { auditId: newId(), atMs: Date.now() }, signal: interruption("interrupted; nothing was kept")
  })
  const megabytes = (manifest.files.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1)
  console.log(`${path} holds everything acknowledged before ${manifest.as_of}: ${manifest.files.length} files, ${megabytes} MB, PostgreSQL ${manifest.postgres}`)
  console.log(manifest.files.some((file) => file.path === "secrets.key")
    ? "The key to its secrets is in it: guard it like DATA_DIR, and keep it on another machine."
    : "SECRETS_KEY is not in it: keep it elsewhere, a restore needs it.")
  return 0
})
