/**
 * Accounts as rows: taking an activation, and the few management writes that
 * come from outside any activation.
 */
import { Effect } from "effect"
import type { Budget, BudgetWindow } from "../domain/budget.ts"
import type { Lease, PendingOrder, SubjectId } from "../domain/account.ts"
import { NotFound, type StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, AgentId, KeyId, LeaseId, OrderId, Token, UserId } from "../domain/ids.ts"
import { Postgres, type Sql } from "./Postgres.ts"

export interface SubjectRow {
  readonly id: KeyId | UserId
  readonly kind: "key" | "login"
  readonly scopes: ReadonlyArray<string> | undefined
  readonly revoked: boolean
  readonly expiresAtMs: number
  readonly rateLimit: number | undefined
  readonly budgets: ReadonlyArray<Budget>
}

export interface ActivationRow {
  readonly id: AccountId
  readonly token: Token
  readonly suspended: boolean
  readonly emailVerified: boolean
  readonly available: bigint
  readonly reserved: bigint
  readonly subjects: ReadonlyArray<SubjectRow>
  /** Pending orders with the token of the activation that ran them. */
  readonly orders: ReadonlyArray<PendingOrder>
  /** Not in `available`. Those that nothing can be spent from any more are among them. */
  readonly leases: ReadonlyArray<Lease>
}

interface AccountRow { token: bigint; available: bigint; reserved: bigint; status: string }

const takeToken = (sql: Sql, id: AccountId) => sql<Array<AccountRow>>`
  update accounts set token = token + 1 where id = ${id} returning token, available, reserved, status`

const selectUsers = (sql: Sql, id: AccountId) => sql<Array<{ id: UserId; verified: boolean }>>`
  select id, email_verified_at is not null as verified from users where account_id = ${id}`

/** Revoked and long expired keys are left out: they are refused when they are looked up. */
const selectKeys = (sql: Sql, id: AccountId) => sql<Array<{ id: KeyId; scopes: Array<string>; rate_limit: number | null; expires_at: Date | null }>>`
  select id, scopes, rate_limit, expires_at from api_keys
  where account_id = ${id} and status = 'active' and (expires_at is null or expires_at > now() - interval '1 day')`

const selectBudgets = (sql: Sql, id: AccountId) => sql<Array<{ key_id: KeyId; budget_window: BudgetWindow; amount: bigint; period_start: Date; spent: bigint }>>`
  select b.key_id, b.budget_window, b.amount, b.period_start, b.spent
  from budgets b join api_keys k on k.id = b.key_id where k.account_id = ${id} and k.status = 'active'`

const selectPendingOrders = (sql: Sql, id: AccountId) => sql<Array<{ id: OrderId; subject_id: KeyId; agent_id: AgentId; ticker: string | null; amount: bigint; created_at: Date }>>`
  select o.id, o.subject_id, o.agent_id, a.ticker, o.amount, o.created_at
  from orders o left join agents a on a.id = o.agent_id where o.account_id = ${id} and o.status = 'pending'`

const selectLeases = (sql: Sql, id: AccountId) => sql<Array<{ id: LeaseId; subject_id: SubjectId; node_id: string; amount: bigint; spent: bigint; granted_at: Date }>>`
  select id, subject_id, node_id, amount, spent, granted_at from leases where account_id = ${id}`

/** Orders that go on under a new activation: they belong to its token from now on. */
const adoptOrders = (sql: Sql, id: AccountId, token: bigint) => sql`
  update orders o set token = ${token} from accounts a
  where o.account_id = ${id} and o.status = 'pending' and a.id = ${id} and a.token = ${token}`

const selectAccountsWithPendingOrders = (sql: Sql) => sql<Array<{ account_id: AccountId }>>`
  select distinct account_id from orders where status = 'pending'`

/**
 * Takes the account over: its token is raised, which refuses every write of an
 * earlier activation, then its state is read. The read comes in statements of
 * its own because the update may have waited for a batch in doubt, and a
 * snapshot taken before that wait would not see it.
 */
export const activateAccount = (id: AccountId): Effect.Effect<ActivationRow, NotFound | StoreUnavailable, Postgres> =>
  Postgres.use(({ run }) =>
    run(async (sql) => {
      const [account] = await takeToken(sql, id)
      if (account === undefined) return undefined
      const [users, keys, budgets, orders, leases] = await Promise.all([
        selectUsers(sql, id), selectKeys(sql, id), selectBudgets(sql, id), selectPendingOrders(sql, id), selectLeases(sql, id), adoptOrders(sql, id, account.token)
      ])
      return activation(id, account, users, keys, budgets, orders, leases)
    })
  ).pipe(Effect.flatMap((row) => row === undefined ? Effect.fail(new NotFound({ what: "account", id })) : Effect.succeed(row)))

const activation = (
  id: AccountId,
  account: AccountRow,
  users: Awaited<ReturnType<typeof selectUsers>>,
  keys: Awaited<ReturnType<typeof selectKeys>>,
  budgets: Awaited<ReturnType<typeof selectBudgets>>,
  orders: Awaited<ReturnType<typeof selectPendingOrders>>,
  leases: Awaited<ReturnType<typeof selectLeases>>
): ActivationRow => ({
  id,
  token: account.token as Token,
  suspended: account.status === "suspended",
  emailVerified: users.some((user) => user.verified),
  available: account.available,
  reserved: account.reserved,
  subjects: [
    ...users.map((user): SubjectRow => ({
      id: user.id, kind: "login", scopes: undefined, revoked: false, expiresAtMs: Infinity, rateLimit: undefined, budgets: []
    })),
    ...keys.map((key): SubjectRow => ({
      id: key.id,
      kind: "key",
      scopes: key.scopes,
      revoked: false,
      expiresAtMs: key.expires_at?.getTime() ?? Infinity,
      rateLimit: key.rate_limit ?? undefined,
      budgets: budgets.filter((budget) => budget.key_id === key.id).map((budget) => ({
        window: budget.budget_window, amount: budget.amount, periodStartMs: budget.period_start.getTime(), spent: budget.spent
      }))
    }))
  ],
  orders: orders.map((order) => ({
    id: order.id, subjectId: order.subject_id, agentId: order.agent_id, agent: order.ticker ?? "", amount: order.amount, createdAtMs: order.created_at.getTime()
  })),
  leases: leases.map((lease) => ({
    id: lease.id, subjectId: lease.subject_id, nodeId: lease.node_id, amount: lease.amount, spent: lease.spent, grantedAtMs: lease.granted_at.getTime()
  }))
})

export const accountsWithPendingOrders: Effect.Effect<ReadonlyArray<AccountId>, StoreUnavailable, Postgres> =
  Postgres.use(({ run }) => run(selectAccountsWithPendingOrders)).pipe(Effect.map((rows) => rows.map((row) => row.account_id)))
