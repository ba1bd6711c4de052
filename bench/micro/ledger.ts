/**
 * The ledger machine alone: nanoseconds for one paid call's two decisions, Hold
 * and Capture, on an account in memory. Each capture ends the oldest of 64 open
 * holds, as when 64 calls of one key are in flight. Ids are made outside the
 * timed blocks and are fresh in each, so that none has a hash yet. Time is the
 * process' own CPU time, the garbage collector's included.
 *
 * Prints a JSON line: by kind of key, one figure a round.
 */
import { randomUUID } from "node:crypto"
import type { Account, Hold, Subject } from "../../src/domain/account.ts"
import type { Budget } from "../../src/domain/budget.ts"
import type { AccountId, AgentId, HoldId, KeyId, Token } from "../../src/domain/ids.ts"
import { decide, isRefusal } from "../../src/domain/ledger.ts"
import { makeRateWindow } from "../../src/domain/rateLimit.ts"
import { autxSplit } from "../../src/domain/terms.ts"

const [rounds = 5, blocks = 200] = process.argv.slice(2).map(Number)
const blockCalls = 1_024
const openHolds = 64
const price = 10_000n
const nowMs = Date.now()
const credits = 1n << 60n

const accountOf = (budgets: ReadonlyArray<Budget>): Account => {
  const subject: Subject = { id: "key" as KeyId, kind: "key", scopes: undefined, revoked: false, expiresAtMs: Infinity, limit: 1_000, window: makeRateWindow(), budgets, held: 0n }
  return {
    id: "account" as AccountId, token: 1n as Token, suspended: false, emailVerified: true, available: credits, reserved: 0n, held: 0n,
    holds: new Map(), orders: new Map(), subjects: new Map([[subject.id, subject]]), leases: new Map(), calls: new Map()
  }
}

const hold = (account: Account, id: HoldId): void => {
  const made: Hold = {
    id, subjectId: "key" as KeyId, amount: price, call: "proxy", agentId: "agent" as AgentId, agent: "AGENT", createdAtMs: nowMs, expiresAtMs: nowMs + 150_000
  }
  if (isRefusal(decide(account, { _tag: "Hold", hold: made }, nowMs))) throw new Error("a hold was refused")
}

const capture = (account: Account, holdId: HoldId): void => {
  const outcome = decide(account, { _tag: "Capture", holdId, amount: price, earnerId: "owner" as AccountId, split: autxSplit }, nowMs)
  if (isRefusal(outcome) || outcome.transaction?.available !== -price) throw new Error("a capture was refused")
}

const newIds = (count: number): Array<HoldId> => Array.from({ length: count }, () => randomUUID() as string as HoldId)

/** CPU microseconds of this process so far. */
const cpuMicros = (): number => {
  const { user, system } = process.cpuUsage()
  return user + system
}

/** Nanoseconds a call, over some blocks. */
const round = (account: Account, open: Array<HoldId>): number => {
  let micros = 0
  for (let block = 0; block < blocks; block++) {
    const ids = newIds(blockCalls)
    const before = cpuMicros()
    for (let call = 0; call < blockCalls; call++) {
      hold(account, ids[call]!)
      capture(account, open[call % openHolds]!)
      open[call % openHolds] = ids[call]!
    }
    micros += cpuMicros() - before
  }
  return micros * 1e3 / (blocks * blockCalls)
}

const measure = (budgets: ReadonlyArray<Budget>): ReadonlyArray<number> => {
  const account = accountOf(budgets)
  const open = newIds(openHolds)
  for (const id of open) hold(account, id)
  round(account, open) // The compiler's.
  const times = Array.from({ length: rounds }, () => round(account, open))
  const calls = BigInt((rounds + 1) * blocks * blockCalls)
  if (account.available !== credits - calls * price || account.held !== BigInt(openHolds) * price) throw new Error("the account does not add up")
  return times
}

const plain = measure([])
const budgeted = measure([{ window: "day", amount: credits, periodStartMs: 0, spent: 0n }])
console.log(JSON.stringify({ plain, budgeted, openHolds, blocks, blockCalls }))
