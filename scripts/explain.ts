/**
 * `npm run explain -- <transaction id | order id> [--json]`: what a charge was
 * for, who paid and who earned, at which terms, and whether the decision that
 * made it comes out the same when it is made again from what is stored. Exit
 * code 1 when it does not, and when there is no such id. An order's id explains
 * all of its transactions. It changes nothing, so it may run beside a gateway.
 *
 * With `--json` one object: `replayed` ("equal" or "differs") and
 * `transactions`, each with its `evidence` and what was `compared`. Amounts are
 * dollars in decimal text.
 */
import { formatUsd } from "../src/domain/credits.ts"
import { readEvidence } from "../src/store/Explain.ts"
import { OperatorFailure, operate } from "../src/store/OperatorConnection.ts"
import { replay } from "./explain/replay.ts"
import { textOf } from "./explain/text.ts"

const usage = "usage: npm run explain -- <transaction id | order id> [--json]; the first is in a paid answer's x-autx-transaction-id, the second in a chat turn's bill"

const read = (args: ReadonlyArray<string>): { readonly id: string; readonly json: boolean } => {
  const ids = args.filter((arg) => arg !== "--json")
  const [id = ""] = ids
  if (ids.length !== 1 || id === "" || id.startsWith("-")) throw new OperatorFailure(usage)
  return { id, json: ids.length < args.length }
}

const asJson = (_: string, value: unknown): unknown => typeof value === "bigint" ? formatUsd(value) : value

await operate("explain", read, async (sql, { id, json }) => {
  const explained = (await readEvidence(sql, id)).map((evidence) => ({ evidence, ...replay(evidence) }))
  if (explained.length === 0) throw new OperatorFailure(`no transaction is ${JSON.stringify(id)} or belongs to an order of that id; ${usage}`)
  const isEqual = explained.every(({ differences }) => differences.length === 0)
  console.log(json
    ? JSON.stringify({ id, replayed: isEqual ? "equal" : "differs", transactions: explained.map(({ evidence, from, lines, differences }) => ({ evidence, from, compared: lines, differences })) }, asJson, 2)
    : explained.map(({ evidence, ...replayed }) => textOf(evidence, replayed)).join("\n\n"))
  return isEqual ? 0 : 1
})
