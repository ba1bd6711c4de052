/**
 * `npm run audit`: proves the books of a live gateway. One line a check, then
 * `audit: N checks, M findings`; exit code 1 when something was found or the
 * database can't be read. It changes nothing.
 */
import { audit } from "../src/store/Audit.ts"
import { noArguments, operate } from "../src/store/OperatorConnection.ts"

await operate("audit", noArguments("usage: npm run audit"), async (sql) => {
  const results = await audit(sql)
  for (const { name, ok, found } of results) console.log(`${ok ? "ok  " : "FAIL"} ${name}${ok ? "" : `: ${found}`}`)
  const findings = results.filter(({ ok }) => !ok).length
  console.log(`audit: ${results.length} checks, ${findings} findings`)
  return findings === 0 ? 0 : 1
})
