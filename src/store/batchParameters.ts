/**
 * The parameters of a flush, one text a section: what every paid call needs as
 * an array of a composite type in PostgreSQL's own form, the rest as a JSON
 * array in the columns that `batchSql.ts` names.
 */
import type { LeaseChange } from "../domain/account.ts"
import type { AccountId, LeaseId, Token } from "../domain/ids.ts"
import type { CommitRequest, UsageRow } from "./Commit.ts"
import { type Section, sections } from "./batchSql.ts"

let lastMs = 0
let lastIso = "1970-01-01T00:00:00.000Z"

/** A batch's rows are of a few milliseconds, and making this text takes as long as the rest of a row. */
const iso = (ms: number): string => {
  if (ms !== lastMs) {
    lastIso = new Date(ms).toISOString()
    lastMs = ms
  }
  return lastIso
}
const isoOrNull = (ms: number | undefined): string | null => ms === undefined || !Number.isFinite(ms) ? null : iso(ms)
const hex = (bytes: Uint8Array | undefined): string | null => bytes === undefined ? null : Buffer.from(bytes).toString("hex")

const arrayOf = (rows: ReadonlyArray<string>): string => `{${rows.join()}}`

/** A text inside a row inside an array: quoted and escaped for both. */
const quoted = (text: string | undefined): string => text === undefined ? "" : `\\"${text.replace(/["\\]/g, "\\\\\\$&")}\\"`

/** The columns that a `batch_usage` and a `batch_transaction` begin with, after those of the call itself. */
const callColumns = ({ call, status, cost, latencyMs }: UsageRow): string => `${call},${status},${cost},${latencyMs}`

/** What a `batch_usage` ends with: fee, recorded, due. */
const dueColumns = ({ due }: UsageRow): string => due === undefined ? "0,f,f" : `${due.fee},${due.recorded ? "t" : "f"},t`

/** One row of a `batch_usage[]`: ASCII, without its comma. */
export const usageRow = (row: UsageRow): string =>
  `"(${row.id},${row.accountId},${row.subjectId},${row.agentId},${callColumns(row)},${iso(row.atMs)},${dueColumns(row)})"`

/** What the transactions of one account in a batch add to it. */
interface Change {
  /** `undefined`: they are charged to leases. */
  readonly token: Token | undefined
  available: bigint
  reserved: bigint
  /** Taken from `available` for leases. */
  leased: bigint
}

const changesOf = (batch: ReadonlyArray<CommitRequest>): Map<AccountId, Change> => {
  const changes = new Map<AccountId, Change>()
  for (const { accountId, token, lease, rows } of batch) {
    let change = changes.get(accountId)
    if (change === undefined) changes.set(accountId, change = { token: lease === undefined ? token : undefined, available: 0n, reserved: 0n, leased: 0n })
    for (const { available, reserved } of rows.transactions ?? []) {
      change.available += available
      change.reserved += reserved
    }
    if (rows.leases !== undefined) for (const { amount } of rows.leases) change.leased += amount
  }
  return changes
}

const accountsParameter = (changes: ReadonlyMap<AccountId, Change>): string => {
  const rows: Array<string> = []
  for (const id of Array.from(changes.keys()).sort()) {
    const { token, available, reserved, leased } = changes.get(id)!
    if (token !== undefined) rows.push(`"(${id},${token},${available - leased},${reserved})"`)
  }
  return arrayOf(rows)
}

/** One `batch_lease[]`, or `undefined` when the statement needs not know of leases. */
const leasesParameter = (batch: ReadonlyArray<CommitRequest>): string | undefined => {
  if (!batch.some(({ lease, hasLeases, rows }) => lease !== undefined || hasLeases === true || rows.leases !== undefined && rows.leases.length > 0)) return undefined
  const taken = new Map<LeaseId, { readonly accountId: AccountId; amount: bigint }>()
  const changed = new Map<LeaseId, LeaseChange & { readonly accountId: AccountId }>()
  for (const { accountId, lease, rows } of batch) {
    if (lease !== undefined) {
      const sum = taken.get(lease) ?? { accountId, amount: 0n }
      for (const { available } of rows.transactions ?? []) sum.amount -= available
      taken.set(lease, sum)
    }
    for (const change of rows.leases ?? []) {
      const known = changed.get(change.id)
      changed.set(change.id, known === undefined ? { ...change, accountId } : { ...change, accountId, isNew: known.isNew, amount: known.amount + change.amount })
    }
  }
  return arrayOf([
    ...Array.from(taken, ([id, { accountId, amount }]) => `"(${id},${accountId},${amount},,,,,)"`),
    ...Array.from(changed.values(), ({ id, accountId, amount, isNew, subjectId, nodeId, grantedAtMs }) =>
      `"(${id},${accountId},,${amount},${isNew ? "t" : "f"},${subjectId},${nodeId},${iso(grantedAtMs)})"`)
  ])
}

/** Uses up the `available` of the changes: what is left of it after a row is what later rows add. */
const transactionRows = (batch: ReadonlyArray<CommitRequest>, changes: ReadonlyMap<AccountId, Change>): Array<string> => {
  const texts: Array<string> = []
  for (const { accountId, lease, rows } of batch) {
    if (rows.transactions === undefined || rows.transactions.length === 0) continue
    const change = changes.get(accountId)!
    for (const row of rows.transactions) {
      change.available -= row.available
      const usage = rows.usage?.find(({ id }) => id === row.id)
      texts.push(`"(${row.id},${accountId},${row.subjectId ?? ""},${row.agentId ?? ""},${usage === undefined ? ",,," : callColumns(usage)},${iso(row.atMs)},${row.type}`
        + `,${row.available},${row.reserved},${row.earnerId ?? ""},${row.earned},${row.fee},${row.buyback},${row.deposits},${row.withdrawals},${change.available}`
        + `,${row.orderId ?? ""},${quoted(row.reference)},${usage?.due === undefined ? "f" : "t"},${lease ?? ""})"`)
    }
  }
  return texts
}

/** What comes as an array of a type of its own. */
type Typed = "transactions" | "calls"

const encode: { readonly [S in Exclude<Section, Typed>]: (request: CommitRequest) => ReadonlyArray<object> } = {
  finished: ({ accountId, rows }) => (rows.finished ?? []).map((row) => ({
    id: row.id, account_id: accountId, status: row.status, fee: String(row.fee), output_hash: row.outputHash,
    output_text: row.outputText, error: row.error, completed_at: iso(row.completedAtMs)
  })),
  orders: ({ accountId, rows }) => (rows.orders ?? []).map((row) => ({
    id: row.id, account_id: accountId, subject_id: row.subjectId, agent_id: row.agentId, prompt: row.prompt,
    payment_method: row.paymentMethod, amount: String(row.amount), fee: String(row.fee), created_at: iso(row.createdAtMs)
  })),
  sessions: ({ accountId, rows }) => (rows.sessions ?? []).map((row) => ({
    id: row.id, account_id: accountId, subject_id: row.subjectId, agent_id: row.agentId, node_id: row.nodeId, price: String(row.price), started_at: iso(row.startedAtMs)
  })),
  turns: ({ accountId, rows }) => (rows.turns ?? []).map((row) => ({
    id: row.id, account_id: accountId, session_id: row.sessionId, term: String(row.term), subject_id: row.subjectId, agent_id: row.agentId,
    message_id: row.messageId, message_index: row.messageIndex, prompt: row.prompt, amount: String(row.amount), fee: String(row.fee),
    output_hash: row.outputHash, output_text: row.outputText, created_at: iso(row.createdAtMs), completed_at: iso(row.completedAtMs)
  })),
  lateCancels: ({ accountId, rows }) => (rows.lateCancels ?? []).map((row) => ({ account_id: accountId, agent_id: row.agentId, day: iso(row.atMs).slice(0, 10) })),
  budgets: ({ accountId, rows }) => (rows.budgets ?? []).map((row) => ({
    account_id: accountId, key_id: row.keyId, budget_window: row.window, period_start: iso(row.periodStartMs), amount: String(row.amount)
  })),
  keys: ({ accountId, rows }) => (rows.keys ?? []).map((row) => ({
    id: row.id, account_id: accountId, dialect: row.dialect, name: row.name, key_hash: hex(row.hash), key_prefix: row.prefix,
    scopes: row.scopes, rate_limit: row.rateLimit, wallet_address: row.walletAddress, expires_at: isoOrNull(row.expiresAtMs), created_at: iso(row.createdAtMs),
    budgets: row.budgets.map((budget) => ({ budget_window: budget.window, amount: String(budget.amount), period_start: iso(budget.periodStartMs) }))
  })),
  revoked: ({ accountId, rows }) => (rows.revoked ?? []).map((row) => ({ id: row.id, account_id: accountId, revoked_at: iso(row.atMs) })),
  agents: ({ accountId, rows }) => (rows.agents ?? []).map((row) => ({
    id: row.id, account_id: accountId, dialect: row.dialect, ticker: row.ticker, name: row.name, description: row.description,
    category: row.category, endpoint_url: row.endpointUrl, price: String(row.price), free_tier_calls: row.freeTierCalls,
    auth_tier: row.authTier, status: row.status, manifest: row.manifest ?? null, provider: row.provider, provider_key: hex(row.providerKey),
    version: String(row.version), created_at: iso(row.createdAtMs), tags: row.tags, payment_method: row.paymentMethod,
    provider_since: isoOrNull(row.providerSinceMs), updated_at: iso(row.updatedAtMs)
  })),
  idempotency: ({ accountId, rows }) => (rows.idempotency ?? []).map((row) => ({
    account_id: accountId, key: row.key, fingerprint: row.fingerprint, result_id: row.resultId, created_at: iso(row.atMs)
  })),
  answers: ({ accountId, rows }) => (rows.idempotency ?? []).flatMap((row) => row.answer === undefined ? [] : [{
    account_id: accountId, key: row.key, status: row.answer.status, headers: row.answer.headers,
    body: Buffer.from(row.answer.body as string).toString("base64"), created_at: iso(row.atMs)
  }]),
  deliveries: ({ accountId, rows }) => (rows.deliveries ?? []).map((row) => ({
    id: row.id, account_id: accountId, webhook_id: row.webhookId, event: row.event, facts: row.facts, created_at: iso(row.atMs)
  })),
  paidSettlements: ({ accountId, rows }) => (rows.paidSettlements ?? []).map((row) => ({
    id: row.id, account_id: accountId, payment_tx: row.paymentTx, paid_at: iso(row.atMs)
  })),
  audit: ({ accountId, rows }) => (rows.audit ?? []).map((row) => ({
    id: row.id, account_id: accountId, actor: row.actor, action: row.action, target: row.target, details: row.details, created_at: iso(row.atMs)
  }))
}

const jsonRows = (batch: ReadonlyArray<CommitRequest>, section: keyof typeof encode): ReadonlyArray<object> => {
  const rows: Array<object> = []
  for (const request of batch) for (const row of encode[section](request)) rows.push(row)
  return rows
}

const textOf = (section: Section, batch: ReadonlyArray<CommitRequest>, changes: ReadonlyMap<AccountId, Change>): string | undefined => {
  if (section === "transactions" || section === "calls") {
    const rows = section === "transactions" ? transactionRows(batch, changes) : batch.flatMap(({ rows }) => (rows.calls ?? []).map(usageRow))
    return rows.length === 0 ? undefined : arrayOf(rows)
  }
  const rows = jsonRows(batch, section)
  return rows.length === 0 ? undefined : JSON.stringify(rows)
}

/**
 * The sections that the batch fills, and whether it has leases; the presented accounts, the named leases if there are, and
 * in statement order these sections' rows. Every account has one token, or leases and no token.
 */
export const batchParameters = (
  batch: ReadonlyArray<CommitRequest>
): { readonly present: ReadonlySet<Section>; readonly leases: boolean; readonly parameters: ReadonlyArray<string> } => {
  const changes = changesOf(batch)
  const leases = leasesParameter(batch)
  const present = new Set<Section>()
  const parameters = [accountsParameter(changes)]
  if (leases !== undefined) parameters.push(leases)
  for (const section of sections) {
    const text = textOf(section, batch, changes)
    if (text === undefined) continue
    present.add(section)
    parameters.push(text)
  }
  return { present, leases: leases !== undefined, parameters }
}
