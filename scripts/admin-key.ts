/**
 * `npm run admin-key -- [owner]`: makes an admin's key of acf for the owner with
 * this name (`admin` unless given), who is made when there is none. The key is
 * printed this once, good for a year, and in the audit log without its secret.
 * A gateway that runs takes it at once.
 */
import { readSettings } from "../src/config.ts"
import { newId } from "../src/kernel/Ids.ts"
import { adminOwner, newAdminKey } from "../src/kernel/market/AdminKey.ts"
import { addAdminKey } from "../src/store/market/AdminKeyStore.ts"
import { OperatorFailure, operate } from "../src/store/OperatorConnection.ts"

const usage = "usage: npm run admin-key -- [owner]"

const ownerCharsMax = 200
const looksLikeAnId = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

const read = (args: ReadonlyArray<string>): string => {
  const [owner = adminOwner, ...more] = args
  if (more.length > 0 || owner.startsWith("-")) throw new OperatorFailure(usage)
  if (owner.trim() === "" || owner.length > ownerCharsMax || /[\p{Cc}\p{Cs}]/u.test(owner) || looksLikeAnId.test(owner)) {
    throw new OperatorFailure(`the owner must be a name of at most ${ownerCharsMax} characters that is no account's id; ${usage}`)
  }
  return owner
}

await operate("admin-key", read, async (sql, owner) => {
  const atMs = Date.now()
  const { made, row } = newAdminKey(atMs)
  await addAdminKey(sql, owner, row, { newId, atMs })
  console.log(`an admin's key of ${JSON.stringify(owner)}, good until ${new Date(row.expiresAtMs).toISOString().slice(0, 10)}; it is shown this once:`)
  console.log(made.key)
  console.log(`send it as Authorization: Bearer ${made.prefix}:sec_..., or paste it at ${readSettings(process.env).publicUrl}/admin/dashboard`)
  return 0
})
