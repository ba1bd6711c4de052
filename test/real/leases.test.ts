/**
 * Leases in the database: what may be spent from one, who refuses it, and what
 * closing it tells. Two committers stand for two nodes: `owner` decides the
 * account, `other` spends from its leases, through a proxy that can cut.
 */
import { randomUUID } from "node:crypto"
import { Effect, Layer, ManagedRuntime } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { LeaseChange, Transaction } from "../../src/domain/account.ts"
import type { AccountId, AgentId, KeyId, LeaseId, OrderId, SessionId, Token, TransactionId } from "../../src/domain/ids.ts"
import { activateAccount } from "../../src/store/AccountStore.ts"
import { audit } from "../../src/store/Audit.ts"
import type { CommitOutcome, CommitRows } from "../../src/store/Commit.ts"
import { Committer } from "../../src/store/Committer.ts"
import { type Closing, closeLeases, leasesOfOthers } from "../../src/store/LeaseStore.ts"
import { imbalance } from "../../src/store/LedgerStore.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { mergeAccounts } from "../../src/store/market/LinkStore.ts"
import { creditAccount, suspend } from "../../src/store/OperatorStore.ts"
import { Postgres, type Sql } from "../../src/store/Postgres.ts"
import { metrics } from "../../src/telemetry/Metrics.ts"
import { type CutProxy, startCutProxy } from "../support/CutProxy.ts"
import { until } from "../support/GatewayProcess.ts"
import { balanceOf, chargeOf, debit, leaseOf, newAccount, submitted, takeToken, transaction } from "../support/ledgerRows.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

const boundBatch = `{"(`
const dayMs = 86_400_000

const open = async (options: TestDatabase["options"]) => {
  const runtime = ManagedRuntime.make(Committer.layer.pipe(Layer.provideMerge(Postgres.layer(options))))
  const lost: Array<readonly [AccountId, Token, LeaseId | undefined]> = []
  const { submit, sql } = await runtime.runPromise(Effect.gen(function*() {
    const committer = yield* Committer
    committer.onLost((...who) => lost.push(who))
    return { submit: committer.submit, sql: (yield* Postgres).reads }
  }))
  return { submit, sql, lost, run: runtime.runPromise, close: () => runtime.dispose() }
}
type Node = Awaited<ReturnType<typeof open>>

describe("a lease", () => {
  let database: TestDatabase
  let proxy: CutProxy
  let sql: Sql
  let owner: Node
  let other: Node

  beforeAll(async () => {
    database = await freshDatabase()
    proxy = await startCutProxy(database.options)
    owner = await open(database.options)
    other = await open(proxy.options)
    sql = owner.sql
    await migrate(sql)
  })
  afterAll(async () => {
    await other.close()
    await owner.close()
    await proxy.close()
    await database.drop()
  })
  // Of all that the tests did.
  afterAll(async () => {
    expect((await audit(sql)).filter(({ ok }) => !ok)).toEqual([])
    expect(await owner.run(imbalance)).toBe(0n)
  })

  const agentId = randomUUID() as string as AgentId
  const committed = { _tag: "committed" }
  const refused = { _tag: "refused" }

  /** An account of 1,000 with its token, and a lease for each amount. */
  const lent = async (...amounts: ReadonlyArray<bigint>) => {
    const id = await newAccount(sql, 1_000n)
    const token = await takeToken(sql, id)
    const leases = amounts.map((amount) => leaseOf(amount))
    expect(await submitted(owner.submit, id, token, { leases })).toEqual(committed)
    return { id, token, leases }
  }
  type Lent = Awaited<ReturnType<typeof lent>>
  /** A paid call that spends from the lease, on the node that has it. */
  const callRows = (id: AccountId, lease: LeaseChange, amount: bigint, more: Partial<Transaction> = {}) => {
    const charge = chargeOf(lease, amount, { agentId, ...more })
    return { transactions: [charge], usage: [{ id: charge.id, accountId: id, subjectId: lease.subjectId, agentId, call: "proxy" as const, status: 200, cost: amount, latencyMs: 1, atMs: charge.atMs }] }
  }
  const spend = (id: AccountId, lease: LeaseChange, amount: bigint, node = other): Promise<CommitOutcome> =>
    submitted(node.submit, id, 0n as Token, callRows(id, lease, amount), { lease: lease.id })
  const change = ({ id, token }: Lent, ...leases: ReadonlyArray<LeaseChange>) => submitted(owner.submit, id, token, { leases }, { hasLeases: true })
  const grown = (lease: LeaseChange, amount: bigint): LeaseChange => ({ ...lease, isNew: false, amount })
  const closing = ({ id, token }: Pick<Lent, "id" | "token">, ...leases: ReadonlyArray<LeaseChange>): Closing => ({ accountId: id, token, leaseIds: leases.map((lease) => lease.id), nowMs: Date.now() })
  const close = (...closings: ReadonlyArray<Closing>) => owner.run(closeLeases(closings))
  const rowOf = async ({ id }: LeaseChange) => (await sql<Array<{ amount: bigint; spent: bigint; is_open: boolean }>>`select amount, spent, is_open from leases where id = ${id}`)[0]
  const callsOf = async (id: AccountId) => (await sql`select from usage where account_id = ${id}`).length
  const balancesAfter = async (id: AccountId) =>
    (await sql<Array<{ balance_after: bigint }>>`select balance_after from transactions where account_id = ${id} order by balance_after desc`).map((row) => row.balance_after)
  const waitForLock = (waiting: number) => until(async () => (await sql`select from pg_stat_activity where datname = current_database() and application_name = 'tollgate-committer' and wait_event_type = 'Lock'`).length === waiting)

  it("takes its money from the account, grows, shrinks, and returns what is left when it is closed", async () => {
    const account = await lent(300n)
    const [lease] = account.leases as [LeaseChange]
    expect(await balanceOf(sql, account.id)).toBe(700n)
    expect(await spend(account.id, lease, 120n)).toEqual(committed)
    expect(await change(account, grown(lease, 100n))).toEqual(committed)
    expect(await change(account, grown(lease, -280n))).toEqual(committed)
    expect([await balanceOf(sql, account.id), await rowOf(lease)]).toEqual([880n, { amount: 120n, spent: 120n, is_open: true }])
    expect(await close(closing(account, lease))).toEqual([{ leaseId: lease.id, spent: 120n }])
    expect([await balanceOf(sql, account.id), await rowOf(lease), await callsOf(account.id)]).toEqual([880n, undefined, 1])
  })

  it("is refused what it has not: no more than is left of it, nothing of another account or of no row, and nothing when it is closed", async () => {
    const [short, foreign, gone] = [await lent(50n), await lent(50n), await lent(50n)]
    await close(closing(gone, ...gone.leases))
    const results = [
      await spend(short.id, short.leases[0]!, 51n), await spend(short.id, foreign.leases[0]!, 10n), await spend(gone.id, gone.leases[0]!, 10n),
      await spend(short.id, leaseOf(10n), 1n), await spend(gone.id, gone.leases[0]!, 0n)
    ]
    expect(results).toEqual(Array(5).fill(refused))
    expect(await spend(short.id, short.leases[0]!, 50n)).toEqual(committed)
    expect([await rowOf(short.leases[0]!), await rowOf(foreign.leases[0]!)]).toEqual([{ amount: 50n, spent: 50n, is_open: true }, { amount: 50n, spent: 0n, is_open: true }])
    expect(other.lost).toContainEqual([gone.id, 0n, gone.leases[0]!.id])
    expect(await balanceOf(sql, gone.id)).toBe(1_000n)
  })

  it("refuses all leased requests of an account in a batch when one of its leases is short, raises none, and its neighbours don't notice", async () => {
    const [account, neighbour] = [await lent(50n, 50n), await lent(50n)]
    const [good, bad] = account.leases as [LeaseChange, LeaseChange]
    const told = await Promise.all([spend(account.id, good, 10n), spend(account.id, bad, 60n), spend(neighbour.id, neighbour.leases[0]!, 10n)])
    expect(told).toEqual([refused, refused, committed])
    expect([await rowOf(good), await rowOf(bad), await callsOf(account.id)]).toMatchObject([{ spent: 0n }, { spent: 0n }, 0])
  })

  it("sums what several requests of a batch take from it, and refuses them all when that is too much", async () => {
    const account = await lent(50n)
    const [lease] = account.leases as [LeaseChange]
    expect(await Promise.all([spend(account.id, lease, 20n), spend(account.id, lease, 30n)])).toEqual([committed, committed])
    const second = await lent(50n)
    expect(await Promise.all([spend(second.id, second.leases[0]!, 20n), spend(second.id, second.leases[0]!, 31n)])).toEqual([refused, refused])
  })

  it("is spent while the account's own row is locked, by a token that is stale, and says so in the transaction", async () => {
    const account = await lent(50n)
    const [lease] = account.leases as [LeaseChange]
    await takeToken(sql, account.id)
    await sql.begin(async (locking) => {
      await locking`select from accounts where id = ${account.id} for update`
      expect(await spend(account.id, lease, 50n)).toEqual(committed)
    })
    expect(await sql`select lease_id from transactions where account_id = ${account.id} and type = 'charge'`).toEqual([{ lease_id: lease.id }])
  })

  it("shrinks below what was spent for nobody, grows for nobody once it is closed, and is nobody else's to change: each takes its request back", async () => {
    const [account, gone, stranger] = [await lent(50n), await lent(50n), await lent()]
    const [lease] = account.leases as [LeaseChange]
    await spend(account.id, lease, 40n)
    const constraint = await submitted(owner.submit, account.id, account.token, { leases: [grown(lease, -20n)], transactions: [debit(5n)] })
    expect(constraint).toEqual({ _tag: "aborted", constraint: "leases_never_overspent" })
    await close(closing(gone, ...gone.leases))
    const late = await submitted(owner.submit, gone.id, gone.token, { leases: [grown(gone.leases[0]!, 20n)], transactions: [debit(5n)] })
    const foreign = await submitted(owner.submit, stranger.id, stranger.token, { leases: [grown(lease, 20n)] })
    const twice = await submitted(owner.submit, stranger.id, stranger.token, { leases: [{ ...lease, amount: 20n }] })
    expect([late._tag, foreign._tag, twice._tag]).toEqual(["aborted", "aborted", "aborted"])
    expect([await balanceOf(sql, account.id), await balanceOf(sql, gone.id), await balanceOf(sql, stranger.id)]).toEqual([950n, 1_000n, 1_000n])
  })

  it("is never granted more than its account has, nor by a stale token", async () => {
    const account = await lent(600n)
    expect(await change(account, leaseOf(500n))).toEqual({ _tag: "aborted", constraint: "accounts_available_not_negative" })
    await takeToken(sql, account.id)
    expect(await change(account, leaseOf(1n))).toEqual(refused)
    expect(await sql`select from leases where account_id = ${account.id}`).toHaveLength(1)
  })

  it("is changed once for all changes of a batch, also when it begins in it", async () => {
    const account = await lent(100n)
    const [lease] = account.leases as [LeaseChange]
    const fresh = leaseOf(30n)
    expect(await Promise.all([change(account, grown(lease, 50n), fresh), change(account, grown(lease, -120n)), change(account, grown(fresh, 10n)), change(account, grown(fresh, -40n))]))
      .toEqual(Array(4).fill(committed))
    expect([await rowOf(lease), await rowOf(fresh), await balanceOf(sql, account.id)]).toMatchObject([{ amount: 30n }, { amount: 0n }, 970n])
  })

  it("tells the balance that the account has with it, on both sides", async () => {
    const account = await lent(300n)
    const [lease] = account.leases as [LeaseChange]
    const pay = (amount: bigint) => submitted(owner.submit, account.id, account.token, { transactions: [debit(amount)] }, { hasLeases: true })
    await spend(account.id, lease, 10n)
    await Promise.all([pay(1n), pay(2n)])
    await Promise.all([submitted(owner.submit, account.id, account.token, { transactions: [debit(3n)], leases: [leaseOf(200n), grown(lease, -50n)] }), pay(4n)])
    await Promise.all([spend(account.id, lease, 20n), spend(account.id, lease, 5n)])
    await close(closing(account, lease))
    await pay(6n)
    expect(await balancesAfter(account.id)).toEqual([1_000n, 990n, 989n, 987n, 984n, 980n, 960n, 955n, 949n])
  })

  it("and its account's own activation are in one batch without meeting: each is refused, or not, by its own fence", async () => {
    const [both, stale, closed] = [await lent(100n), await lent(100n), await lent(100n)]
    await takeToken(sql, stale.id)
    await close(closing(closed, ...closed.leases))
    const pay = ({ id, token }: Lent) => submitted(other.submit, id, token, { transactions: [debit(10n)] }, { hasLeases: true })
    const told = await Promise.all([both, stale, closed].flatMap((account) => [pay(account), spend(account.id, account.leases[0]!, 20n), pay(account)]))
    expect(told.map(({ _tag }) => _tag === "committed")).toEqual([true, true, true, false, true, false, true, false, true])
    expect(await Promise.all([both, stale, closed].map(({ id }) => balanceOf(sql, id)))).toEqual([880n, 900n, 980n])
    expect(other.lost).toContainEqual([stale.id, stale.token, undefined])
    expect(other.lost).toContainEqual([closed.id, 0n, closed.leases[0]!.id])
    expect(other.lost).not.toContainEqual([closed.id, closed.token, undefined])
  })

  it("gives up, when it is lost, what still waits of it, and not what waits of the account or of its other leases", async () => {
    const account = await lent(100n, 100n)
    const [lost, kept] = account.leases as [LeaseChange, LeaseChange]
    await close(closing(account, lost))
    const first = spend(account.id, lost, 1n)
    // The first batch is in flight when the others are submitted.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    const later = [spend(account.id, lost, 1n), spend(account.id, kept, 1n), submitted(other.submit, account.id, account.token, { transactions: [debit(1n)] })]
    expect(await Promise.all([first, ...later])).toEqual([refused, refused, committed, committed])
  })

  it("may be charged, and nothing else: no reserve, no budget, no order, no lease", async () => {
    const account = await lent(100n)
    const [lease] = account.leases as [LeaseChange]
    const submit = (rows: CommitRows) => submitted(other.submit, account.id, 0n as Token, rows, { lease: lease.id })
    const wrong: ReadonlyArray<CommitRows> = [
      { transactions: [transaction({ type: "reserve", available: -1n, reserved: 1n, orderId: randomUUID() as string as OrderId })] }, { transactions: [debit(1n)] },
      { transactions: [transaction({ type: "charge", available: 1n, fee: -1n })] }, { leases: [leaseOf(1n)] },
      { budgets: [{ keyId: lease.subjectId as KeyId, window: "day", periodStartMs: 0, amount: 1n }] }
    ]
    for (const rows of wrong) expect(await submit(rows)).toEqual(refused)
    // Nobody learned what became of a batch that should never have been sent: the lease is given up.
    expect(await rowOf(lease)).toEqual({ amount: 100n, spent: 0n, is_open: false })
  })

  it("carries a chat turn with its session and what else is written with it, or none of it", async () => {
    const account = await lent(100n)
    const [lease] = account.leases as [LeaseChange]
    const { subjectId } = lease
    const submit = (rows: CommitRows) => submitted(other.submit, account.id, 0n as Token, rows, { lease: lease.id })
    const sessionId = `ses_${randomUUID().replaceAll("-", "")}` as SessionId
    const atMs = Date.now()
    const turn = (messageIndex: number): CommitRows => {
      const orderId = randomUUID() as string as OrderId
      const { transactions, usage } = callRows(account.id, lease, 10n, { orderId })
      return {
        transactions, usage: usage.map((call) => ({ ...call, call: "chat" as const })),
        turns: [{
          id: orderId, sessionId, term: 1n, subjectId, agentId, messageId: undefined, messageIndex, prompt: "p", amount: 10n, fee: 10n,
          outputHash: "h", outputText: "t", createdAtMs: atMs, completedAtMs: atMs
        }],
        idempotency: [{ key: randomUUID(), fingerprint: "f", resultId: orderId, answer: undefined, atMs }], lateCancels: [{ agentId, atMs }]
      }
    }
    expect(await submit({ sessions: [{ id: sessionId, subjectId, agentId, nodeId: randomUUID(), price: 10n, startedAtMs: atMs }] })).toEqual(committed)
    expect(await submit(turn(1))).toEqual(committed)
    expect((await submit(turn(3)))._tag).toBe("aborted")
    expect(await sql`select token, lease_id from orders o join transactions t on t.order_id = o.id where o.account_id = ${account.id}`).toEqual([{ token: 0n, lease_id: lease.id }])
    expect([await rowOf(lease), await callsOf(account.id), await sql`select from idempotency_keys where account_id = ${account.id}`]).toMatchObject([{ spent: 10n, is_open: true }, 1, { length: 1 }])
    await close(closing(account, lease))
    expect(await submit({ lateCancels: [{ agentId, atMs }] })).toEqual(refused)
    expect(await sql`select cancels from late_cancels where account_id = ${account.id}`).toEqual([{ cancels: 1 }])
  })

  it("waits for a closing and is refused by it, or is waited for and told by it", async () => {
    const [first, second] = [await lent(100n), await lent(100n)]
    const [spentLate, spentEarly] = [first.leases[0]!, second.leases[0]!]
    let late: Promise<CommitOutcome> | undefined
    await sql.begin(async (closer) => {
      await closer`update accounts set available = available + 100 where id = ${first.id}`
      await closer`delete from leases where id = ${spentLate.id}`
      late = spend(first.id, spentLate, 10n)
      await waitForLock(1)
    })
    expect(await late).toEqual(refused)
    // The batch has the lease and waits for the earner's row; the closing waits for the lease.
    const earnerId = await newAccount(sql)
    let early: Promise<CommitOutcome> | undefined
    let closed: ReturnType<typeof close> | undefined
    await sql.begin(async (locking) => {
      await locking`select from earnings where account_id = ${earnerId} for update`
      early = submitted(other.submit, second.id, 0n as Token, callRows(second.id, spentEarly, 30n, { fee: 0n, earned: 30n, earnerId }), { lease: spentEarly.id })
      await waitForLock(1)
      closed = close(closing(second, spentEarly))
      await waitForLock(2)
    })
    expect([await early, await closed]).toEqual([committed, [{ leaseId: spentEarly.id, spent: 30n }]])
    expect(await balanceOf(sql, second.id)).toBe(970n)
  })

  it("has spent, by its closing's word, exactly what was committed, in 200 races of both", async () => {
    const accounts = await Promise.all(Array.from({ length: 200 }, () => lent(100n)))
    const races = await Promise.all(accounts.map(async (account, at) => {
      const lease = account.leases[0]!
      const spending = async () => {
        let sum = 0n
        for (let amount = 1n; amount < 12n; amount++) if ((await spend(account.id, lease, amount))._tag === "committed") sum += amount
        return sum
      }
      const settled = async () => {
        for (let turn = 0; turn < at % 8; turn++) await sql`select 1`
        return close(closing(account, lease))
      }
      const [sum, closed] = await Promise.all([spending(), settled()])
      expect(closed).toEqual([{ leaseId: lease.id, spent: sum }])
      expect(await balanceOf(sql, account.id)).toBe(1_000n - sum)
      return sum
    }))
    expect(new Set(races).size).toBeGreaterThan(1)
    expect(await sql`select from leases where account_id = any(${accounts.map(({ id }) => id)}::uuid[])`).toEqual([])
  })

  it("is closed once, and only under the account's token", async () => {
    const [account, stale] = [await lent(100n, 50n), await lent(100n)]
    await takeToken(sql, stale.id)
    const all = [closing(account, ...account.leases), closing(stale, ...stale.leases)]
    expect((await close(...all)).map(({ leaseId }) => leaseId).sort()).toEqual(account.leases.map(({ id }) => id).sort())
    expect(await close(...all)).toEqual([])
    expect([await balanceOf(sql, account.id), await balanceOf(sql, stale.id)]).toEqual([1_000n, 900n])
  })

  it("charges its key's budgets when it is closed: in this period, or in the later one that the budget or the grant was in", async () => {
    const account = await lent()
    const today = Math.floor(Date.now() / dayMs) * dayMs
    const key = async (periodStart: number, grantedAtMs: number) => {
      const subjectId = randomUUID() as string as KeyId
      await sql`insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes) values (${subjectId}, ${account.id}, 'autx', 'k', sha256(${subjectId}::bytea), 'k', '{}')`
      for (const [window, amount, start] of [["day", 60, periodStart], ["total", 1_000, 0]] as const) {
        await sql`insert into budgets (key_id, budget_window, amount, period_start, spent) values (${subjectId}, ${window}, ${amount}, ${new Date(start)}, 20)`
      }
      const paid = transaction({ type: "charge", available: -20n, fee: 20n, subjectId, agentId })
      const usage = [{ id: paid.id, accountId: account.id, subjectId, agentId, call: "proxy" as const, status: 200, cost: 20n, latencyMs: 1, atMs: paid.atMs }]
      const leases = [1, 2].map(() => leaseOf(20n, { subjectId, grantedAtMs }))
      expect(await submitted(owner.submit, account.id, account.token, { transactions: [paid], usage, leases })).toEqual(committed)
      for (const lease of leases) expect(await spend(account.id, lease, 15n)).toEqual(committed)
      return { subjectId, leases }
    }
    const keys = [await key(today - dayMs, today), await key(today, today), await key(today + dayMs, today), await key(today, today + dayMs)]
    await close(closing(account, ...keys.flatMap(({ leases }) => leases)))
    const budgets = await Promise.all(keys.map(({ subjectId }) => sql`select (period_start at time zone 'UTC')::date::text as day, spent from budgets where key_id = ${subjectId} order by budget_window`))
    const day = (at: number) => new Date(at).toISOString().slice(0, 10)
    const total = { day: "1970-01-01", spent: 50n }
    expect(budgets).toEqual([
      [{ day: day(today), spent: 30n }, total], [{ day: day(today), spent: 50n }, total],
      [{ day: day(today + dayMs), spent: 50n }, total], [{ day: day(today + dayMs), spent: 30n }, total]
    ])
  })

  it("is read by the next activation, beside the account's own money, and found when its node is not there any more", async () => {
    const account = await lent(100n)
    const [lease] = account.leases as [LeaseChange]
    await spend(account.id, lease, 30n)
    const { available, leases } = await owner.run(activateAccount(account.id))
    const { id, subjectId, nodeId, grantedAtMs } = lease
    expect([available, leases]).toEqual([900n, [{ id, subjectId, nodeId, amount: 100n, spent: 30n, grantedAtMs }]])
    const found = await owner.run(leasesOfOthers([randomUUID()], 10_000))
    expect(found).toContainEqual({ leaseId: id, accountId: account.id, nodeId })
    expect((await owner.run(leasesOfOthers([nodeId], 10_000))).map(({ leaseId }) => leaseId)).not.toContain(id)
    expect(await owner.run(leasesOfOthers([], 1))).toHaveLength(1)
  })

  it("tells the true outcome of a batch whose connection was cut, and can't be spent from afterwards", async () => {
    const [done, never, untouched] = [await lent(100n), await lent(100n), await lent(100n)]
    const cut = proxy.arm("beforeAnswer", boundBatch)
    const outcome = spend(done.id, done.leases[0]!, 10n)
    await cut
    expect(await outcome).toEqual(committed)
    expect(other.lost).toContainEqual([done.id, 0n, done.leases[0]!.id])
    const second = proxy.arm("beforeSend", boundBatch)
    const lost = spend(never.id, never.leases[0]!, 10n)
    await second
    expect(await lost).toEqual(refused)
    for (const account of [done, never]) expect(await spend(account.id, account.leases[0]!, 1n)).toEqual(refused)
    expect(await spend(untouched.id, untouched.leases[0]!, 1n)).toEqual(committed)
    expect([await rowOf(done.leases[0]!), await rowOf(never.leases[0]!)]).toEqual([{ amount: 100n, spent: 10n, is_open: false }, { amount: 100n, spent: 0n, is_open: false }])
    expect(await close(closing(done, ...done.leases), closing(never, ...never.leases))).toHaveLength(2)
    expect([await balanceOf(sql, done.id), await balanceOf(sql, never.id)]).toEqual([990n, 1_000n])
  })

  it("keeps all books over forty cuts, while it grows and shrinks", async () => {
    const accounts = await Promise.all(Array.from({ length: 3 }, () => lent()))
    const left = new Map(accounts.map(({ id }) => [id, 1_000n]))
    for (let round = 0; round < 40; round++) {
      const leases = accounts.map(() => leaseOf(60n))
      await Promise.all(accounts.map((account, at) => change(account, leases[at]!)))
      const cut = proxy.arm(round % 3 === 0 ? "beforeSend" : "beforeAnswer", boundBatch)
      const told = accounts.map((account, at) => spend(account.id, leases[at]!, BigInt(1 + round % 5)))
      await Promise.all(accounts.map((account, at) => change(account, grown(leases[at]!, round % 2 === 0 ? 5n : -5n))))
      await cut
      const outcomes = await Promise.all(told)
      outcomes.forEach(({ _tag }, at) => {
        expect(_tag).not.toBe("unknown")
        if (_tag === "committed") left.set(accounts[at]!.id, left.get(accounts[at]!.id)! - BigInt(1 + round % 5))
      })
      await close(...accounts.map((account, at) => closing(account, leases[at]!)))
    }
    for (const { id } of accounts) expect(await balanceOf(sql, id)).toBe(left.get(id))
  }, 120_000)

  it("never makes two committers wait in a circle, whatever the order of what they spend, grow, give back and close", async () => {
    const refusedBatches = async () => (await metrics.batches.get()).values.find(({ labels }) => labels["outcome"] === "refused")?.value ?? 0
    const third = await open(database.options)
    // Each node owns half of the accounts and spends from the other's, and both pay the same few earners.
    const rounds = 15
    const accounts = await Promise.all(Array.from({ length: 40 }, () => lent(200n, 200n, ...Array<bigint>(rounds).fill(1n))))
    const earners = await Promise.all(Array.from({ length: 4 }, () => newAccount(sql)))
    const nodes = [owner, third] as const
    const before = await refusedBatches()
    const amidst = accounts.flatMap(({ leases }) => leases.slice(0, 2)).map(({ id }) => id).sort()[accounts.length]!
    for (let round = 0; round < rounds; round++) {
      const steps = accounts.map((account, at) => () => {
        const [mine, theirs] = at % 2 === 0 ? nodes : [nodes[1], nodes[0]] as const
        const [one, two] = round % 2 === 0 ? account.leases : [account.leases[1], account.leases[0]]
        const closed = mine.run(closeLeases([closing(account, account.leases[2 + round]!)])).then((answers): CommitOutcome => ({ _tag: answers.length === 1 ? "committed" : "refused" }))
        const charge = (lease: LeaseChange) =>
          submitted(theirs.submit, account.id, 0n as Token, callRows(account.id, lease, 1n, { fee: 0n, earned: 1n, earnerId: earners[at % 4]! }), { lease: lease.id })
        return Promise.all([
          charge(two!), submitted(mine.submit, account.id, account.token, { transactions: [debit(1n)], leases: [grown(one!, 2n), grown(two!, -2n)] }), charge(one!), closed
        ])
      })
      // Both stop amidst their leases, so that either has some that the other needs.
      let told: Promise<ReadonlyArray<ReadonlyArray<CommitOutcome>>> | undefined
      await sql.begin(async (locking) => {
        await locking`select from leases where id = ${amidst} for update`
        told = Promise.all([...round % 3 === 0 ? steps : [...steps].reverse()].map((step) => step()))
        await waitForLock(2)
      })
      expect((await told!).flat().every(({ _tag }) => _tag === "committed")).toBe(true)
    }
    await third.close()
    expect(await refusedBatches() - before).toBe(0)
    for (const { id } of accounts) expect(await balanceOf(sql, id)).toBe(600n - BigInt(rounds))
    const closed = await close(...accounts.map((account) => closing(account, ...account.leases)))
    expect(closed.reduce((sum, { spent }) => sum + spent, 0n)).toBe(BigInt(accounts.length * 2 * rounds))
  }, 60_000)

  it("is closed when an operator adds, takes back or suspends, and when its account becomes another: its money is there, and what comes too late is refused", async () => {
    const emailOf = async (id: AccountId) => {
      await sql`insert into users (id, account_id, email, password_hash) values (${randomUUID()}, ${id}, ${`${id}@example.com`}, 'x')`
      return `${id}@example.com`
    }
    const entry = () => ({ auditId: randomUUID(), atMs: Date.now() })
    const credit = (email: string, amount: bigint) => creditAccount(sql, { ...entry(), email, amount, reason: "r", transactionId: randomUUID() as string as TransactionId, batchId: randomUUID() })
    const [taken, suspended, from] = [await lent(300n), await lent(300n), await lent(300n)]
    for (const account of [taken, suspended, from]) await spend(account.id, account.leases[0]!, 40n)
    const email = await emailOf(taken.id)
    expect(await credit(email, -961n)).toEqual({ _tag: "short", available: 960n })
    expect(await spend(taken.id, taken.leases[0]!, 10n)).toEqual(committed)
    expect(await credit(email, -900n)).toEqual({ _tag: "credited", available: 50n })
    expect(await balancesAfter(taken.id)).toEqual([1_000n, 960n, 950n, 50n])
    expect(await suspend(sql, { what: "account", id: suspended.id, name: "" }, true, entry())).toBe(true)
    const into = await newAccount(sql, 5n)
    const merged = await mergeAccounts(sql, { from: from.id, into, transactionId: randomUUID(), batchId: randomUUID(), auditId: randomUUID(), actor: "operator", atMs: Date.now() })
    expect(merged).toBe("merged")
    for (const account of [taken, suspended, from]) {
      expect(await rowOf(account.leases[0]!)).toBeUndefined()
      expect(await spend(account.id, account.leases[0]!, 1n)).toEqual(refused)
    }
    expect(await sql`select posted from earnings where account_id = ${into}`).toEqual([{ posted: 960n }])
    expect([await balanceOf(sql, suspended.id), await balanceOf(sql, from.id)]).toEqual([960n, 0n])
  })
})
