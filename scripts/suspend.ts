/**
 * `npm run suspend -- <account id | email | agent id | ticker> [--lift]`: every
 * call of a suspended account is refused, every call to a suspended agent too,
 * and lists hide it. Nothing else of them changes. A gateway that runs knows it
 * a moment later. Repeating it does nothing.
 */
import { newId } from "../src/kernel/Ids.ts"
import { OperatorFailure, operate } from "../src/store/OperatorConnection.ts"
import { findSuspendable, suspend } from "../src/store/OperatorStore.ts"

const usage = "usage: npm run suspend -- <account id | email | agent id | ticker> [--lift]"

const read = (args: ReadonlyArray<string>): { readonly name: string; readonly lift: boolean } => {
  const names = args.filter((arg) => arg !== "--lift")
  const [name = ""] = names
  if (names.length !== 1 || name === "" || name.startsWith("-")) throw new OperatorFailure(usage)
  return { name, lift: names.length < args.length }
}

await operate("suspend", read, async (sql, { name, lift }) => {
  const found = await findSuspendable(sql, name)
  if (found === undefined) throw new OperatorFailure(`there is no account and no agent ${JSON.stringify(name)}; ${usage}`)
  const changed = await suspend(sql, found, !lift, { auditId: newId(), atMs: Date.now() })
  const subject = `${found.what} ${found.id} (${found.name})`
  const effect = found.what === "account" ? "its calls are refused" : "calls to it are refused, and lists hide it"
  if (lift) console.log(changed ? `${subject} is no longer suspended` : `${subject} was not suspended`)
  else console.log(changed ? `${subject} is suspended: ${effect}` : `${subject} was suspended already`)
  return 0
})
