/** Rows for tests that talk to the Committer directly: accounts, and balanced transactions between them. */
import { randomUUID } from "node:crypto"
import type { LeaseChange, SubjectId, Transaction } from "../../src/domain/account.ts"
import type { AccountId, LeaseId, Token, TransactionId } from "../../src/domain/ids.ts"
import type { CommitOutcome, CommitRequest, CommitRows } from "../../src/store/Commit.ts"
import type { Sql } from "../../src/store/Postgres.ts"

export const newAccount = async (sql: Sql, available = 0n): Promise<AccountId> => {
  const id = randomUUID() as string as AccountId
  await sql`insert into accounts (id) values (${id})`
  await sql`insert into earnings (account_id) values (${id})`
  if (available > 0n) {
    const [batch, tx] = [randomUUID(), randomUUID()]
    await sql`insert into batches (id, fee, buyback, deposits, withdrawals, refused) values (${batch}, 0, 0, ${-available}, 0, '{}')`
    await sql`insert into transactions (id, batch_id, account_id, type, available, reserved, earned, fee, buyback, deposits, withdrawals, balance_after, created_at)
              values (${tx}, ${batch}, ${id}, 'deposit', ${available}, 0, 0, 0, 0, ${-available}, 0, ${available}, now())`
    await sql`update accounts set available = ${available} where id = ${id}`
  }
  return id
}

export const takeToken = async (sql: Sql, id: AccountId): Promise<Token> => {
  const [row] = await sql<Array<{ token: bigint }>>`update accounts set token = token + 1 where id = ${id} returning token`
  return row!.token as Token
}

export const balanceOf = async (sql: Sql, id: AccountId): Promise<bigint> => {
  const [row] = await sql<Array<{ available: bigint }>>`select available from accounts where id = ${id}`
  return row!.available
}

export const transaction = (sides: Partial<Transaction>): Transaction => ({
  id: randomUUID() as string as TransactionId, type: "charge", available: 0n, reserved: 0n, earnerId: undefined, earned: 0n, fee: 0n, buyback: 0n,
  deposits: 0n, withdrawals: 0n, agentId: undefined, orderId: undefined, subjectId: undefined, reference: undefined, atMs: Date.now(), ...sides
})

/** What begins a lease of a node and a key that nothing else is known of. */
export const leaseOf = (amount: bigint, more: Partial<LeaseChange> = {}): LeaseChange => ({
  id: randomUUID() as string as LeaseId, subjectId: randomUUID() as string as SubjectId, nodeId: randomUUID(), isNew: true, amount, grantedAtMs: Date.now(), ...more
})

/** What a node takes from a lease: the simplest charge. */
export const chargeOf = ({ subjectId }: LeaseChange, amount: bigint, more: Partial<Transaction> = {}): Transaction =>
  transaction({ type: "charge", available: -amount, fee: amount, subjectId, ...more })

/** A fee of `amount`: the simplest debit. */
export const debit = (amount: bigint): Transaction => transaction({ type: "fee", available: -amount, fee: amount })

export const submitted = (
  submit: (request: CommitRequest) => void, accountId: AccountId, token: Token, rows: CommitRows, more: Pick<CommitRequest, "lease" | "hasLeases"> = {}
): Promise<CommitOutcome> => new Promise((done) => submit({ accountId, token, rows, done, ...more }))
