/**
 * `npm run restore -- <backup> [--force]`: makes what a backup holds the database
 * of DATA_DIR, or of DATABASE_URL when it is a dump. No gateway may run on it.
 * Exit code 1 also when the books of what was restored don't add up.
 */
import { resolve } from "node:path"
import { newId } from "../src/kernel/Ids.ts"
import { OperatorFailure, command, interruption } from "../src/store/OperatorConnection.ts"
import { restore } from "../src/store/backup/Restore.ts"

const usage = "usage: npm run restore -- <backup> [--force]"

const read = (args: ReadonlyArray<string>): { readonly path: string; readonly replace: boolean } => {
  const [path = "", ...rest] = args.filter((arg) => arg !== "--force")
  if (path === "" || path.startsWith("-") || rest.length > 0) throw new OperatorFailure(usage)
  return { path: resolve(path), replace: args.includes("--force") }
}

await command("restore", read, async (settings, { path, replace }) => {
  const { manifest, accounts, transactions, checks, aside } = await restore(settings, {
    path, replace, entry: { auditId: newId(), atMs: Date.now() }, signal: interruption("interrupted; nothing was restored")
  })
  console.log(`restored as of ${manifest.as_of}: ${accounts} accounts, ${transactions} transactions; what came later is gone`)
  if (aside !== undefined) console.log(`what was there is in ${aside}`)
  if (!manifest.files.some((file) => file.path === "secrets.key")) console.log("start the gateway with the SECRETS_KEY of that time")
  const findings = checks.filter(({ ok }) => !ok)
  for (const { name, found } of findings) console.log(`FAIL ${name}: ${found}`)
  console.log(`audit: ${checks.length} checks, ${findings.length} findings`)
  return findings.length === 0 ? 0 : 1
})
