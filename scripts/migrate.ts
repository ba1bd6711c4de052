/**
 * `npm run migrate`: brings the tables of DATABASE_URL up to date, before the
 * gateways that need them are started; a gateway's own start does the same.
 * Names what it applied. Safe to repeat, and to run while another one runs.
 */
import { migrate } from "../src/store/Migrations.ts"
import { noArguments, operate } from "../src/store/OperatorConnection.ts"

await operate("migrate", noArguments("usage: npm run migrate"), async (sql) => {
  let count = 0
  await migrate(sql, (name) => {
    count++
    console.log(`applied ${name}`)
  })
  console.log(count === 0 ? "migrate: everything was applied already" : `migrate: ${count} applied`)
  return 0
})
